"""Quantisers and Transposes where OpenVINO fuses them: a model that computes the same in fewer passes over its activations.

Of a model with dynamic shapes OpenVINO fuses a quantiser into the operation before it where nobody else reads that. The
quantiser of LayerNorm's output, which the residual reads too, and that of the attention's context, which comes out of a
Transpose and a Reshape, stay nodes of their own, and those compute in float32: in an engine whose rest is bf16 a conversion
goes before each. Behind a Minimum above all that they clip they are the second operation of one node, which reads bf16 and
writes INT8.

Attention is one node with its Transposes, but for that of the keys if it also turns each head's matrix, as a graph says that
has no transposed products: the product can do that.

Example: model = openvino.Core().read_model("model.onnx"); fuse(model)
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import openvino

_SHAPING = ("Reshape", "Transpose")
_RANGE = range(1, 5)
"""Inputs of a FakeQuantize: the ends of what goes in, and of what comes out."""

_HEADS, _HEADS_TURNED = [0, 2, 1, 3], [0, 2, 3, 1]
"""From [batch, sequence, head, channel] to [batch, head, sequence, channel], and to [batch, head, channel, sequence]."""


def fuse(model: "openvino.Model") -> None:
    """Write a model so that OpenVINO fuses what it can; the values that it computes stay the same."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize":
            _fuse_quantizer(node)
        elif node.get_type_name() == "MatMul":
            _fuse_keys(node)
    model.validate_nodes_and_infer_types()


def _fuse_quantizer(node: "openvino.Node") -> None:
    """Put a Minimum before a quantiser that would be a node of its own; one with ranges by channel stays as it is."""
    if all(_is_one_value(node.input_value(place)) for place in _RANGE):
        source = node.input_value(0)
        if source.get_node().get_type_name() in _SHAPING:
            _bound(node, _channels(source))
        elif len(source.get_target_inputs()) > 1:
            _bound(node, 1)


def _fuse_keys(product: "openvino.Node") -> None:
    """Have a product turn its second operand, instead of the Transpose that gives it."""
    from openvino import opset13

    transpose, turned = product.input_value(1).get_node(), product.get_attributes()
    if transpose.get_type_name() != "Transpose" or turned["transpose_a"] or turned["transpose_b"]:
        return
    order = transpose.input_value(1).get_node()
    if order.get_type_name() == "Constant" and order.get_data().tolist() == _HEADS_TURNED:
        heads = opset13.transpose(transpose.input_value(0), opset13.constant(np.array(_HEADS)))
        made = opset13.matmul(product.input_value(0), heads, False, True)
        for reader in product.output(0).get_target_inputs():
            reader.replace_source_output(made.output(0))


def _is_one_value(value: "openvino.Output") -> bool:
    node = value.get_node()
    return bool(node.get_type_name() == "Constant" and node.get_data().size == 1)


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
