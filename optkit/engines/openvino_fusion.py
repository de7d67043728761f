"""Quantisers where OpenVINO fuses them: a model that computes the same in fewer passes over its activations.

Of a model with dynamic shapes OpenVINO fuses a quantiser into the operation before it where nobody else reads that. The
quantiser of LayerNorm's output, which the residual reads too, and that of the attention's context, which comes out of a
Transpose and a Reshape, stay nodes of their own, and those compute in float32: in an engine whose rest is bf16 a conversion
goes before each. Behind a Minimum above all that they clip they are the second operation of one node, which reads bf16 and
writes INT8.

Example: model = openvino.Core().read_model("model.onnx"); fuse_quantizers(model)
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import openvino

_SHAPING = ("Reshape", "Transpose")
_RANGE = range(1, 5)
"""Inputs of a FakeQuantize: the ends of what goes in, and of what comes out."""


def fuse_quantizers(model: "openvino.Model") -> None:
    """Put a Minimum before the quantisers that would be nodes of their own; those with ranges by channel stay as is."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize" and all(_is_one_value(node.input_value(place)) for place in _RANGE):
            source = node.input_value(0)
            if source.get_node().get_type_name() in _SHAPING:
                _bound(node, _channels(source))
            elif len(source.get_target_inputs()) > 1:
                _bound(node, 1)
    model.validate_nodes_and_infer_types()


def _is_one_value(value: "openvino.Output") -> bool:
    node = value.get_node()
    return node.get_type_name() == "Constant" and node.get_data().size == 1


def _channels(value: "openvino.Output") -> int | None:
    """Size of the last dimension; None where it is not known."""
    shape = value.get_partial_shape()
    last = shape[shape.rank.get_length() - 1] if shape.rank.is_static and shape.rank.get_length() else None
    return last.get_length() if last is not None and last.is_static else None


def _bound(quantizer: "openvino.Node", channels: int | None) -> None:
    """Let a quantiser read a Minimum of its input and twice the end of its range, which is beyond it in bf16 too.

    The bound stands there for each channel where one for all would be moved on, through the Transpose.
    """
    from openvino import opset13

    (end,) = quantizer.input_value(2).get_node().get_data().ravel()
    if channels and end > 0:
        bounds = opset13.constant(np.full(channels, 2 * end, np.float32))
        bounded = opset13.minimum(quantizer.input_value(0), bounds)
        quantizer.input(0).replace_source_output(bounded.output(0))
