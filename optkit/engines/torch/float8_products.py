"""INT8 products in FP8 instead (E4M3; Micikevicius et al. 2022, arXiv 2209.05433), for cards from Ada on.

The ranges are those that were calibrated for INT8. Inputs have one scale, and so has each weight: a number of E4M3 has as
many digits when it is small as when it is large, so that a scale for each channel would gain little.
"""

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, helper

from optkit.core.errors import InputError
from optkit.engines.torch.encoder_operators import FLOAT8_MOST
from optkit.engines.torch.graph_nodes import Nodes
from optkit.engines.torch.int8_products import DOMAIN
from optkit.engines.torch.sparse_products import is_two_to_four
from optkit.graph.passes import remove_unused

INT8_MOST = 127
"""The largest number of the INT8 grid; the smallest one is cut off to its negative."""
_MULTIPLE = 16
"""What both sizes of a weight must be multiples of."""


def to_float8(graph: GraphProto, bias: type) -> None:
    """Make every INT8 product and every quantiser in front of one FP8, in place.

    Args:
        graph: after `optkit.engines.torch.fusions.fuse`.
        bias: NumPy's type of the biases, that of the products' results.

    Raises:
        InputError: a product's sizes are no multiples of 16, its weight is 2:4, or a quantised tensor is read by something
            else.
    """
    nodes = Nodes(graph)
    steps = {node.output[0]: step for node in graph.node if (step := _step(node))}
    for name in steps:
        for reader in nodes.readers.get(name, []):
            if reader.op_type != "Int8Linear":
                raise InputError(
                    f"{reader.name}: {reader.op_type} reads a quantised tensor, which FP8 has for products alone"
                )
    for node in list(graph.node):
        if node.op_type == "Int8Linear":
            nodes.replace(node, _product(nodes, node, steps[node.input[0]], bias))
        elif node.op_type == "Quantize":
            step = _float8_step(steps[node.output[0]])
            made = helper.make_node("QuantizeFloat8", node.input, node.output, node.name, domain=DOMAIN, step=step)
            nodes.replace(node, made)
    remove_unused(graph)


def _step(node: NodeProto) -> float | None:
    """The step of the INT8 grid that a node's result is on, if it is."""
    found = [one.f for one in node.attribute if one.name == "step"]
    return found[0] if found and node.op_type in ("Quantize", "Int8Linear") else None


def _float8_step(step: float) -> float:
    """The scale with which E4M3 reaches as far as an INT8 grid."""
    return step * INT8_MOST / FLOAT8_MOST


def _product(nodes: Nodes, node: NodeProto, step: float, bias: type) -> NodeProto:
    quantised, scale, added = (nodes.array(name) for name in node.input[1:])
    if quantised is None or scale is None or added is None or any(size % _MULTIPLE for size in quantised.shape):
        raise InputError(
            f"{node.name}: a weight {list(quantised.shape) if quantised is not None else 'that is none'}, where FP8 takes "
            f"multiples of {_MULTIPLE}. Leave out FP8, or choose another engine"
        )
    if is_two_to_four(quantised):
        raise InputError(
            f"{node.name}: FP8 and 2:4 are not combined, and its weight is 2:4. Take INT8, which has 2:4 kernels"
        )
    weight, weight_scale = _rounded(quantised * (scale / np.float32(step))[:, None])
    constants = {
        "weight": weight,
        "scale": np.array(_float8_step(step), np.float32),
        "weight_scale": np.array(weight_scale),
        "bias": added.astype(bias),
    }
    inputs = [nodes.add_constant(f"{node.name}/float8/{name}", array) for name, array in constants.items()]
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    if "step" in attributes:
        attributes["step"] = _float8_step(attributes["step"])
    return helper.make_node("Float8Linear", [node.input[0], *inputs], node.output, node.name, domain=DOMAIN, **attributes)


def _rounded(weight: NDArray[np.float32]) -> tuple[NDArray[Any], np.float32]:
    """A weight in E4M3 and its scale."""
    scale = np.float32(max(np.abs(weight).max(), np.finfo(np.float32).tiny * FLOAT8_MOST) / FLOAT8_MOST)
    return (weight / scale).astype(ml_dtypes.float8_e4m3fn), scale
