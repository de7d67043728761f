"""Nodes of a graph made one where PyTorch has one kernel for them: attention, products that share an input, INT8 products.

The nodes that come of it are of the domain `optkit`; `optkit.engines.torch.encoder_operators` computes them. What does not
look as expected stays as it is.
"""

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, NodeProto, helper, numpy_helper

from optkit.engines.torch.graph_nodes import Nodes
from optkit.engines.torch.int8_products import DOMAIN, join_int8_products
from optkit.graph.passes import remove_unused


def fuse(graph: GraphProto, to: int) -> dict[str, int]:
    """Make attention, products that share an input, and INT8 products one node each, in place.

    Args:
        graph: float32, of `optkit.graph.export`, quantised or not.
        to: ONNX's number of the type that INT8 products give, which the rest of the graph is about to have.

    Returns:
        How many of each were made: `attention`, `int8_products`, `shared_products`.

    Raises:
        InputError: a quantiser is not symmetric.
    """
    counts = {"attention": _join_attention(graph), "int8_products": join_int8_products(graph, to)}
    counts["shared_products"] = _join_shared_products(graph)
    remove_unused(graph)
    return counts


def _join_attention(graph: GraphProto) -> int:
    """Make softmax(scale · Q Kᵀ + mask) V one node of Q, Kᵀ, V and the mask."""
    nodes, count = Nodes(graph), 0
    for softmax in [node for node in graph.node if node.op_type == "Softmax"]:
        after = nodes.only_reader(softmax.output[0], "MatMul")
        last_axis = helper.get_node_attr_value(softmax, "axis") in (-1, 3)
        found = _scores(nodes, softmax.input[0]) if after is not None and last_axis else None
        if after is None or found is None or after.input[0] != softmax.output[0]:
            continue
        product, scale, mask = found
        inputs = [*product.input, after.input[1], *mask]
        nodes.replace(after, helper.make_node("Attention", inputs, after.output, after.name, domain=DOMAIN, scale=scale))
        count += 1
    return count


def _scores(nodes: Nodes, name: str) -> tuple[NodeProto, float, list[str]] | None:
    """The product that scores are made of, what it is multiplied by, and the name of the mask if one is added."""
    add = nodes.source(name, "Add")
    for scored in [name] if add is None else add.input:
        found = _scaled_product(nodes, scored)
        if found is not None:
            return *found, [other for other in add.input if other != scored] if add is not None else []
    return None


def _scaled_product(nodes: Nodes, name: str) -> tuple[NodeProto, float] | None:
    """The product of two activations that a tensor is, and the number that it is multiplied by."""
    scale, scaled = 1.0, nodes.source(name, "Mul", "Div")
    if scaled is not None:
        number = nodes.number(scaled.input[1])
        if number is None:
            return None
        name, scale = scaled.input[0], 1 / number if scaled.op_type == "Div" else number
    product = nodes.source(name, "MatMul")
    return None if product is None or any(one in nodes.known for one in product.input) else (product, scale)


def _join_shared_products(graph: GraphProto) -> int:
    """Make the products of one tensor with several weights, of queries, keys and values above all, one that is cut."""
    nodes, count = Nodes(graph), 0
    for source, readers in nodes.readers.items():
        group = [node for node in readers if node.input[0] == source and _has_weight(nodes, node)]
        kinds = {(node.op_type, str(list(node.attribute))) for node in group}
        if len(group) > 1 and len(kinds) == 1:
            _replace_all(nodes, group)
            count += 1
    return count


def _has_weight(nodes: Nodes, node: NodeProto) -> bool:
    weight = nodes.known.get(node.input[1]) if node.op_type in ("MatMul", "Int8Linear") else None
    return weight is not None and len(weight.dims) == 2


def _replace_all(nodes: Nodes, group: Sequence[NodeProto]) -> None:
    """Put one product and its cuts in the place of several that have the same input."""
    first = group[0]
    out = 0 if first.op_type == "Int8Linear" else 1
    inputs = [first.input[0]]
    for place in range(1, len(first.input)):
        parts = [numpy_helper.to_array(nodes.known[node.input[place]]) for node in group]
        together = np.concatenate(parts, out if place == 1 else 0)
        inputs.append(nodes.add_constant(f"{first.name}/shared/{place}", together))
    sizes = np.array([nodes.known[node.input[1]].dims[out] for node in group], np.int64)
    cuts, wide = nodes.add_constant(f"{first.name}/shared/sizes", sizes), f"{first.output[0]}/shared"
    product = helper.make_node(first.op_type, inputs, [wide], f"{first.name}/shared", domain=first.domain)
    product.attribute.extend(first.attribute)
    outputs = [node.output[0] for node in group]
    split = helper.make_node("Split", [wide, cuts], outputs, f"{first.name}/Split", axis=-1)
    nodes.replace(first, product, split)
    for node in group[1:]:
        nodes.replace(node)
