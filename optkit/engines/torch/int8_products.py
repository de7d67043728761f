"""Products of quantised inputs and weights as one node each, with bias, GELU and the quantiser that follow them."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, helper

from optkit.core.errors import InputError
from optkit.engines.torch.graph_nodes import Nodes

DOMAIN = "optkit"
"""Domain of the nodes that are not ONNX's own."""
_NO_CLIP = 3e38
_GELU = ("Erf", "Add", "Mul", "Mul")


class _Product(NamedTuple):
    """A product of two dequantised tensors."""

    node: NodeProto
    quantised: str
    """Name of the INT8 input."""
    scale: NDArray[np.float32]
    """Product of both scales, [out]."""
    weight: NDArray[np.int8]
    """[in, out]."""


def join_int8_products(graph: GraphProto, to: int) -> int:
    """Make one node of each quantised product, in place.

    Args:
        graph: float32, of `optkit.graph.export`.
        to: ONNX's number of the type that a product gives where no quantiser follows.

    Returns:
        How many there were.

    Raises:
        InputError: a quantiser is not symmetric.
    """
    nodes = Nodes(graph)
    _check_symmetric(nodes)
    found = [_product(nodes, node) for node in graph.node if node.op_type == "MatMul"]
    products = [product for product in found if product is not None]
    for product in products:
        _replace(nodes, product, to)
    read = {node.input[0] for node in graph.node if node.op_type == "Int8Linear"}
    for node in [one for one in graph.node if one.op_type == "QuantizeLinear" and one.output[0] in read]:
        # the step as a number: constants are about to lose half their bits
        step = nodes.number(node.input[1])
        nodes.replace(node, helper.make_node("Quantize", [node.input[0]], node.output, node.name, domain=DOMAIN, step=step))
    return len(products)


def _check_symmetric(nodes: Nodes) -> None:
    for node in nodes.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2:
            zero = nodes.array(node.input[2])
            if zero is None or zero.dtype != np.int8 or zero.any():
                raise InputError(
                    f"{node.name}: a quantiser with zero point {node.input[2]}, where the torch engine takes INT8 ones "
                    "around zero alone. Choose another engine"
                )


def _product(nodes: Nodes, node: NodeProto) -> _Product | None:
    left, right = (nodes.source(name, "DequantizeLinear") for name in node.input)
    if left is None or right is None or nodes.source(left.input[0], "QuantizeLinear") is None:
        return None
    step, scales, weight = nodes.number(left.input[1]), nodes.array(right.input[1]), nodes.array(right.input[0])
    if step is None or scales is None or weight is None or weight.dtype != np.int8 or weight.ndim != 2:
        return None
    if scales.size > 1 and helper.get_node_attr_value(right, "axis") != 1:
        return None
    scale = np.broadcast_to(scales.reshape(-1).astype(np.float32) * np.float32(step), weight.shape[1:])
    return _Product(node, left.input[0], scale, weight)


def _replace(nodes: Nodes, product: _Product, to: int) -> None:
    last, bias = _with_bias(nodes, product)
    attributes, last = _epilogue(nodes, last)
    name = product.node.name
    inputs = [
        product.quantised,
        nodes.add_constant(f"{name}/weight/int8", product.weight.T),
        nodes.add_constant(f"{name}/scale/float32", product.scale),
        nodes.add_constant(f"{name}/bias/float32", bias),
    ]
    nodes.replace(last, helper.make_node("Int8Linear", inputs, last.output, name, domain=DOMAIN, to=to, **attributes))


def _with_bias(nodes: Nodes, product: _Product) -> tuple[NodeProto, NDArray[np.float32]]:
    """The node that adds a bias, and the bias; the product itself and zeros where there is none."""
    add = nodes.only_reader(product.node.output[0], "Add")
    constant = nodes.constant_input(add) if add is not None else None
    if add is None or constant is None or constant.shape != product.scale.shape:
        return product.node, np.zeros_like(product.scale)
    return add, constant.astype(np.float32)


def _epilogue(nodes: Nodes, last: NodeProto) -> tuple[dict[str, Any], NodeProto]:
    """GELU, its clip and the quantiser behind a node, if nothing else reads between: attributes, and the last node."""
    end, high = _gelu(nodes, last), _NO_CLIP
    if end is None:
        return {}, last
    clip = nodes.only_reader(end.output[0], "Clip")
    if clip is not None and len(clip.input) == 3 and not clip.input[1] and (most := nodes.number(clip.input[2])) is not None:
        end, high = clip, most
    quantize = nodes.only_reader(end.output[0], "QuantizeLinear")
    step = None if quantize is None else nodes.number(quantize.input[1])
    if quantize is None or step is None:
        return {}, last
    return {"gelu": 1, "high": high, "step": step}, quantize


def _gelu(nodes: Nodes, node: NodeProto) -> NodeProto | None:
    """The last node of x/2 · (1 + erf(x/√2)), if it is all that is made of a node's output x."""
    readers = nodes.readers.get(node.output[0], [])
    end = next((one for one in readers if one.op_type == "Div"), None)
    if end is None or len(readers) != 2 or abs((nodes.number(end.input[1]) or 0) - 2**0.5) > 1e-6:
        return None
    chain = []
    for operator in _GELU:
        end = nodes.only_reader(end.output[0], operator)
        if end is None:
            return None
        chain.append(end)
    _, one, product, half = chain
    numbers = [constant.item() for each in (one, half) if (constant := nodes.constant_input(each)) is not None]
    return half if numbers == [1.0, 0.5] and node.output[0] in product.input else None
