"""Products with 2:4 weights by cuSPARSELt, where that is faster than the dense product and gives the same.

cuSPARSELt plans each call anew on the host, and some of its ways cannot run on some cards. On a Hopper card a call took
longer than a dense product, its planning included. So every way is tried out on the card for which an engine is built, for
each product (`optkit.engines.torch.sparse_trial`).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from optkit.engines.torch.graph_nodes import Nodes
from optkit.engines.torch.int8_products import DOMAIN
from optkit.engines.torch.onnx_module import OnnxModule
from optkit.graph.passes import remove_unused

_OPERATORS = {"MatMul": "SparseLinear", "Int8Linear": "SparseInt8Linear"}
"""The operator with a compressed weight, by that with a dense one."""
_LEAST: Mapping[int, int] = {TensorProto.FLOAT16: 16, TensorProto.BFLOAT16: 16, TensorProto.INT8: 32}
"""What both sizes of a weight must be multiples of for cuSPARSELt, by type."""


@dataclasses.dataclass(frozen=True)
class Product:
    """A product with a 2:4 weight, as far as its speed depends on it."""

    operator: str
    """The dense one: "MatMul" or "Int8Linear"."""
    kind: int
    """ONNX's number of the weight's type."""
    to: int
    """That of the result's type, before it is quantised."""
    gelu: int
    """Whether the result goes through GELU and is quantised: 1 or 0."""
    columns: int
    depth: int

    @property
    def sparse_operator(self) -> str:
        """The operator with a compressed weight."""
        return _OPERATORS[self.operator]


class Way(NamedTuple):
    """One way to call cuSPARSELt."""

    turned: int
    """Whether it transposes the result itself: 1 or 0."""
    algorithm: int


def join_sparse_products(graph: GraphProto, choose: Callable[[Product], Way | None]) -> dict[str, int]:
    """Give products with 2:4 weights to cuSPARSELt, in place.

    Args:
        graph: fused, in its last types.
        choose: gives the way to compute a product; None for the dense one.

    Returns:
        `sparse_layers_eligible`: how many products have a 2:4 weight that cuSPARSELt takes; `sparse_layers_chosen`: how many
        of them were given to it.
    """
    nodes = Nodes(graph)
    eligible = [(node, product) for node in graph.node if (product := _product(nodes, node)) is not None]
    ways = {product: choose(product) for product in dict.fromkeys(product for _, product in eligible)}
    for node, product in eligible:
        if (way := ways[product]) is not None:
            nodes.replace(node, _sparse(nodes, node, product, way))
    remove_unused(graph)
    chosen = sum(ways[product] is not None for _, product in eligible)
    return {"sparse_layers_eligible": len(eligible), "sparse_layers_chosen": chosen}


def compress(module: OnnxModule) -> None:
    """Replace the weights of a module on a GPU that are multiplied by cuSPARSELt by what it makes of them."""
    names = {module.tensors[step.inputs[1]] for step in module.steps if step.operator in _OPERATORS.values()}
    for name in names:
        weight = getattr(module, name)
        setattr(module, name, torch._cslt_compress(weight).reshape(len(weight), -1))


def is_two_to_four(weight: NDArray[Any]) -> bool:
    """Whether of every four consecutive input channels of a weight [out, in] two are zero, and not all of the weight is."""
    return bool(((weight.reshape(-1, 4) == 0).sum(1) >= 2).all() and weight.any())


def _product(nodes: Nodes, node: NodeProto) -> Product | None:
    tensor = nodes.known.get(node.input[1]) if node.op_type in _OPERATORS else None
    if tensor is None or len(tensor.dims) != 2 or any(size % _LEAST.get(tensor.data_type, 1 << 31) for size in tensor.dims):
        return None
    weight = _as_rows(node, tensor)
    told = _attributes(node)
    to, gelu = told.get("to", tensor.data_type), told.get("gelu", 0)
    return Product(node.op_type, tensor.data_type, to, gelu, *weight.shape) if is_two_to_four(weight) else None


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def _as_rows(node: NodeProto, tensor: TensorProto) -> NDArray[Any]:
    """A weight [out, in]."""
    array = numpy_helper.to_array(tensor)
    return array if node.op_type == "Int8Linear" else array.T


def _sparse(nodes: Nodes, node: NodeProto, product: Product, way: Way) -> NodeProto:
    name = node.input[1]
    weight = nodes.add_constant(f"{name}/2:4", np.ascontiguousarray(_as_rows(node, nodes.known[name])))
    inputs = [node.input[0], weight, *node.input[2:]]
    attributes = _attributes(node) | way._asdict()
    return helper.make_node(product.sparse_operator, inputs, node.output, node.name, domain=DOMAIN, **attributes)
