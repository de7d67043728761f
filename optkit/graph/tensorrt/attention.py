"""What moves out of attention without changing what it computes, so that its GEMMs and its kernel have less to do.

* The scale 1/√d moves from the first product to the queries: fused kernels want it in front of the product.
* A bias of the keys adds the same to all scores of a query, which softmax takes away again: it is dropped.
* Probabilities add up to 1, so a bias of the values passes through the second product as it is: it becomes part of the
  bias of the output projection.

Each only where the graph is seen to allow it; otherwise everything stays where it is.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from optkit.graph.passes import constants, producers
from optkit.graph.products import products
from optkit.graph.tensorrt.neighbours import MOVES, bias_of, only_reader, readers

_HEADS_FIRST = [0, 2, 1, 3]
"""[batch, sequence, heads, size] to [batch, heads, sequence, size], and back."""
_IN_FRONT_OF_SOFTMAX = ("Mul", "Div", "Add", "Where", "Cast")


class _View:
    """A graph with its look-ups made once; made anew after each change."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph, self.made_by, self.known, self.read_by = graph, producers(graph), constants(graph), readers(graph)

    def attention(self) -> list[NodeProto]:
        """Attention's products of activations."""
        names = {product.name for product in products(self.graph) if product.is_attention}
        return [node for node in self.graph.node if node.name in names]

    def is_first(self, product: NodeProto) -> bool:
        """Whether softmax is taken of a product, scaled and masked or not."""
        after = only_reader(self.read_by, product.output[0])
        while after is not None and after.op_type in _IN_FRONT_OF_SOFTMAX:
            after = only_reader(self.read_by, after.output[0])
        return after is not None and after.op_type == "Softmax"

    def biased(self, name: str) -> NodeProto | None:
        """The addition of a bias that a tensor comes from, where nothing else reads what is in between."""
        while (node := self.made_by.get(name)) is not None and only_reader(self.read_by, name) is not None:
            if node.op_type not in MOVES:
                gemm = self.made_by.get(self.gemm_output(node))
                return node if gemm is not None and bias_of(gemm, self.read_by, self.known) is node else None
            name = node.input[0]
        return None

    def gemm_output(self, add: NodeProto) -> str:
        """What an addition adds a constant to."""
        return next((name for name in add.input if name not in self.known), "")

    def constant(self, add: NodeProto) -> str:
        """The constant of an addition."""
        return next(name for name in add.input if name in self.known)


class Folding(NamedTuple):
    """A bias of the values that can become part of another."""

    values: NodeProto
    """The addition of the bias to the values."""
    bias: str
    context: str
    """What attention puts out and the projection's quantiser, or the projection itself, reads."""
    projection: NodeProto
    output: NodeProto
    """The addition of the projection's bias."""


def fold_scales(graph: GraphProto) -> int:
    """Move each constant factor behind a first product to the queries in front of it; returns how many there were."""
    count = 0
    for product in _View(graph).attention():
        view = _View(graph)
        after = only_reader(view.read_by, product.output[0])
        factor = _factor(view, after) if after is not None and view.is_first(product) else None
        places = list(_scaled_by(view, product)) if factor is not None else []
        if after is None or factor is None or not places:
            continue
        for node, position in places:
            _multiply(graph, node, position, factor)
        product.output[0] = after.output[0]
        graph.node.remove(after)
        count += 1
    return count


def _factor(view: _View, node: NodeProto) -> float | None:
    """What a node multiplies by, where it is one number."""
    other = view.known.get(node.input[1]) if node.op_type in ("Mul", "Div") else None
    if other is None or numpy_helper.to_array(other).size != 1:
        return None
    value = float(numpy_helper.to_array(other).reshape(()))
    return value if node.op_type == "Mul" else 1 / value


def _scaled_by(view: _View, product: NodeProto) -> Iterator[tuple[NodeProto, int]]:
    """The constants that scale the queries, as (node, position among its inputs); none where one cannot be reached."""
    name = product.input[0]
    found: list[tuple[NodeProto, int]] = []
    while (node := view.made_by.get(name)) is not None and only_reader(view.read_by, name) is not None:
        if node.op_type == "DequantizeLinear":
            yield from [*found, (node, 1)]
            return
        if node.op_type == "MatMul":
            weight = view.made_by.get(node.input[1])
            if node.input[1] in view.known:
                yield from [*found, (node, 1)]
            elif weight is not None and weight.op_type == "DequantizeLinear" and view.known[weight.input[1]].dims:
                yield from [
                    *found,
                    (weight, 1),
                ]  # a single scale is that of key and value too, which makes one GEMM of three
            return
        if node.op_type == "Add" and view.biased(name) is node:
            found.append((node, list(node.input).index(view.constant(node))))
            name = view.gemm_output(node)
        elif node.op_type in MOVES:
            name = node.input[0]
        else:
            return


def _multiply(graph: GraphProto, node: NodeProto, position: int, factor: float) -> None:
    """Let a node read a multiple of a constant; layers that share the constant share the multiple."""
    known, name = constants(graph), node.input[position]
    scaled = f"{name}/times_{factor:.9g}"
    if scaled not in known:
        array = numpy_helper.to_array(known[name])
        graph.initializer.append(numpy_helper.from_array((array * factor).astype(array.dtype), scaled))
    node.input[position] = scaled


def drop_key_biases(graph: GraphProto) -> int:
    """Take out the keys' biases; returns how many there were."""
    count = 0
    for product in _View(graph).attention():
        view = _View(graph)
        add = view.biased(product.input[1]) if view.is_first(product) else None
        if add is not None:
            _bypass(view, add)
            count += 1
    return count


def foldings(graph: GraphProto) -> list[Folding]:
    """The biases of values that can become part of the output projection's."""
    view = _View(graph)
    return [found for product in view.attention() if (found := _folding(view, product)) is not None]


def _folding(view: _View, second: NodeProto) -> Folding | None:
    weights, values = view.made_by.get(second.input[0]), view.biased(second.input[1])
    if weights is None or weights.op_type != "Softmax" or values is None:
        return None
    if not (_last_axis(weights) and _is_heads_first(view.made_by[second.input[1]])):
        return None
    after = only_reader(view.read_by, second.output[0])
    merged = only_reader(view.read_by, after.output[0]) if after is not None and _is_heads_first(after) else None
    if merged is None or merged.op_type != "Reshape":
        return None
    name = context = merged.output[0]
    while (node := only_reader(view.read_by, name)) is not None and node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        name = node.output[0]
    output = bias_of(node, view.read_by, view.known) if node is not None and node.op_type == "MatMul" else None
    return Folding(values, view.constant(values), context, node, output) if node is not None and output is not None else None


def _last_axis(softmax: NodeProto) -> bool:
    return next((attribute.i for attribute in softmax.attribute if attribute.name == "axis"), -1) in (-1, 3)


def _is_heads_first(node: NodeProto) -> bool:
    return node.op_type == "Transpose" and helper.get_node_attr_value(node, "perm") == _HEADS_FIRST


def fold_value_bias(graph: GraphProto, folding: Folding) -> None:
    """Move a bias of the values into that of the output projection: through the weight that the projection multiplies by."""
    view = _View(graph)
    weight = _weight(view.made_by, view.known, folding.projection.input[1])
    passed = numpy_helper.to_array(view.known[folding.bias]) @ weight
    old = view.constant(folding.output)
    array = numpy_helper.to_array(view.known[old])
    own = f"{folding.output.name}/with_value_bias"
    graph.initializer.append(numpy_helper.from_array((array + passed).astype(array.dtype), own))
    folding.output.input[list(folding.output.input).index(old)] = own
    _bypass(view, folding.values)


def _weight(made_by: Mapping[str, NodeProto], known: Mapping[str, TensorProto], name: str) -> np.ndarray:
    """Values [in, out] of a weight, stored as floats or as INT8 with its scales."""
    if name in known:
        return numpy_helper.to_array(known[name])
    stored, scale = (numpy_helper.to_array(known[each]) for each in made_by[name].input[:2])
    return stored.astype(np.float32) * scale


def _bypass(view: _View, add: NodeProto) -> None:
    """Take an addition of a constant out of the graph."""
    before = view.gemm_output(add)
    for reader in view.read_by[add.output[0]]:
        for position, name in enumerate(reader.input):
            if name == add.output[0]:
                reader.input[position] = before
    view.graph.node.remove(add)
