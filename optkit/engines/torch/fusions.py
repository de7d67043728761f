"""Nodes of a graph made one where PyTorch has one kernel for them: attention, products that share an input, INT8 products.

The nodes that come of it are of the domain `optkit`; `optkit.engines.torch.operators` computes them. What does not look as
expected stays as it is.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from optkit.graph.passes import constants, producers, remove_unused

DOMAIN = "optkit"
_GELU = ("Div", "Erf", "Add", "Mul", "Mul")


class Nodes:
    """The nodes of a graph by what they make and what they read.

    Args:
        graph: nothing is changed in it before `replace`.
    """

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph
        self.made_by, self.known = producers(graph), constants(graph)
        self.readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {output.name for output in graph.output}

    def source(self, name: str, *operators: str) -> NodeProto | None:
        """Return the node that makes a tensor, if it is one of these operators."""
        node = self.made_by.get(name)
        return node if node is not None and node.op_type in operators else None

    def only_reader(self, name: str, *operators: str) -> NodeProto | None:
        """Return the one node that reads a tensor, if there is no other and it is one of these operators."""
        found = self.readers.get(name, [])
        alone = len(found) == 1 and name not in self.outputs and found[0].op_type in operators
        return found[0] if alone else None

    def array(self, name: str) -> NDArray[Any] | None:
        """Return a constant; None where it is none."""
        return numpy_helper.to_array(self.known[name]) if name in self.known else None

    def number(self, name: str) -> float | None:
        """Return a constant of one entry; None where it is none."""
        found = self.array(name)
        return None if found is None or found.size != 1 else float(found.reshape(()))

    def split(self, node: NodeProto) -> tuple[str, NDArray[Any]] | None:
        """Return the name of a node's input that is computed, and the array of its constant one; None without one each."""
        for computed, constant in (node.input, reversed(node.input)):
            if constant in self.known and computed not in self.known:
                return computed, numpy_helper.to_array(self.known[constant])
        return None

    def add_constant(self, name: str, array: NDArray[Any]) -> str:
        """Put a constant into the graph, and return its name."""
        if name not in self.known:
            tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
            self.graph.initializer.append(tensor)
            self.known[name] = tensor
        return name

    def replace(self, last: NodeProto, *made: NodeProto) -> None:
        """Put nodes in the place of one whose output the last of them makes; what only fed it is removed later."""
        place = next(at for at, node in enumerate(self.graph.node) if node is last or node.output[:] == last.output[:])
        del self.graph.node[place]
        for offset, node in enumerate(made):
            self.graph.node.insert(place + offset, node)


def fuse(graph: GraphProto, to: int) -> dict[str, int]:
    """Make attention, products that share an input, and INT8 products one node each, in place.

    Args:
        graph: float32, of `optkit.graph.export`, quantised or not.
        to: ONNX's number of the type that INT8 products give, which the rest of the graph is about to have.

    Returns:
        How many of each were made: `attention`, `shared_products`, `int8_products`.
    """
    counts = {"attention": _attention(graph), "int8_products": _int8_products(graph, to)}
    counts["shared_products"] = _shared_products(graph)
    remove_unused(graph)
    return counts


def _attention(graph: GraphProto) -> int:
    """softmax(scale · Q Kᵀ + mask) V as one node of Q, Kᵀ, V and the mask."""
    nodes, made = Nodes(graph), []
    for softmax in [node for node in graph.node if node.op_type == "Softmax"]:
        after = nodes.only_reader(softmax.output[0], "MatMul")
        if (
            after is None
            or after.input[0] != softmax.output[0]
            or helper.get_node_attr_value(softmax, "axis") not in (-1, 3)
        ):
            continue
        scores, mask = softmax.input[0], ""
        add = nodes.source(scores, "Add")
        if add is not None:
            # the mask is the input that does not come from the product
            inputs = [name for name in add.input if _product_of(nodes, name) is not None]
            if len(inputs) != 1:
                continue
            scores, mask = inputs[0], next(name for name in add.input if name != inputs[0])
        found = _product_of(nodes, scores)
        if found is None:
            continue
        product, scale = found
        inputs = [*product.input, after.input[1], *([mask] if mask else [])]
        made.append((after, helper.make_node("Attention", inputs, after.output, after.name, domain=DOMAIN, scale=scale)))
    for last, node in made:
        nodes.replace(last, node)
    return len(made)


def _product_of(nodes: Nodes, name: str) -> tuple[NodeProto, float] | None:
    """The product of two activations that a tensor is, and the number that it is multiplied by."""
    scale = 1.0
    scaled = nodes.source(name, "Mul", "Div")
    if scaled is not None:
        number = nodes.number(scaled.input[1])
        if number is None:
            return None
        name, scale = scaled.input[0], 1 / number if scaled.op_type == "Div" else number
    product = nodes.source(name, "MatMul")
    if product is None or any(one in nodes.known for one in product.input):
        return None
    return product, scale


def _shared_products(graph: GraphProto) -> int:
    """Products of one tensor with several weights, of queries, keys and values above all, as one product that is cut."""
    nodes, count = Nodes(graph), 0
    for source, readers in list(nodes.readers.items()):
        group = [node for node in readers if node.input[0] == source and _is_linear(nodes, node)]
        if len(group) < 2 or len({node.op_type for node in group}) > 1:
            continue
        first = group[0]
        if first.op_type == "Int8Linear" and len({str(list(node.attribute)) for node in group}) > 1:
            continue
        axis = 0 if first.op_type == "Int8Linear" else 1
        sizes = [nodes.known[node.input[1]].dims[axis] for node in group]
        inputs = [source]
        for place in range(1, len(first.input)):
            parts = [numpy_helper.to_array(nodes.known[node.input[place]]) for node in group]
            inputs.append(
                nodes.add_constant(f"{first.name}/shared/{place}", np.concatenate(parts, axis if place == 1 else 0))
            )
        wide = f"{first.output[0]}/shared"
        product = helper.make_node(first.op_type, inputs, [wide], f"{first.name}/shared", domain=first.domain)
        product.attribute.extend(first.attribute)
        cuts = nodes.add_constant(f"{first.name}/shared/sizes", np.array(sizes, np.int64))
        split = helper.make_node("Split", [wide, cuts], [node.output[0] for node in group], f"{first.name}/Split", axis=-1)
        places = [at for at, node in enumerate(graph.node) if any(node.output[:] == one.output[:] for one in group)]
        for at in reversed(places):
            del graph.node[at]
        graph.node.insert(places[0], product)
        graph.node.insert(places[0] + 1, split)
        count += 1
    return count


def _is_linear(nodes: Nodes, node: NodeProto) -> bool:
    if node.op_type == "Int8Linear":
        return True
    return node.op_type == "MatMul" and node.input[1] in nodes.known and len(nodes.known[node.input[1]].dims) == 2


def _int8_products(graph: GraphProto, to: int) -> int:
    """Quantised input times quantised weight, scaled, with bias; with GELU and the next quantiser where they follow."""
    nodes, made = Nodes(graph), []
    for product in [node for node in graph.node if node.op_type == "MatMul"]:
        left, right = (nodes.source(name, "DequantizeLinear") for name in product.input)
        quantize = None if left is None else nodes.source(left.input[0], "QuantizeLinear")
        weight = None if right is None else nodes.array(right.input[0])
        if (
            left is None
            or right is None
            or quantize is None
            or weight is None
            or weight.dtype != np.int8
            or weight.ndim != 2
        ):
            continue
        step, scales = nodes.number(left.input[1]), nodes.array(right.input[1])
        if step is None or scales is None or _axis(right, scales) != 1:
            continue
        made.append((product, quantize, step, scales, weight))
    for product, quantize, step, scales, weight in made:
        last, bias = product, np.zeros(weight.shape[1], np.float32)
        add = nodes.only_reader(product.output[0], "Add")
        cut = nodes.split(add) if add is not None else None
        if add is not None and cut is not None and cut[1].shape == bias.shape:
            last, bias = add, cut[1].astype(np.float32)
        attributes, last = _epilogue(nodes, last)
        name = product.name
        scale = np.broadcast_to(scales.reshape(-1).astype(np.float32) * np.float32(step), bias.shape)
        inputs = [
            quantize.output[0],
            nodes.add_constant(f"{name}/weight/int8", weight.T),
            nodes.add_constant(f"{name}/scale/float32", scale),
            nodes.add_constant(f"{name}/bias/float32", bias),
        ]
        nodes.replace(last, helper.make_node("Int8Linear", inputs, last.output, name, domain=DOMAIN, to=to, **attributes))
    _quantisers(nodes)
    return len(made)


def _axis(dequantize: NodeProto, scales: NDArray[Any]) -> int:
    """The axis of a weight's scales; one scale for all goes with any."""
    return 1 if scales.size == 1 else helper.get_node_attr_value(dequantize, "axis")


def _epilogue(nodes: Nodes, last: NodeProto) -> tuple[dict[str, Any], NodeProto]:
    """GELU, its clip and the quantiser behind a product, if they follow and nothing else reads between: attributes, end."""
    end = _gelu(nodes, last)
    if end is None:
        return {}, last
    high = 3e38
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
    value = node.output[0]
    readers = nodes.readers.get(value, [])
    divide = next((one for one in readers if one.op_type == "Div"), None)
    if divide is None or len(readers) != 2 or abs((nodes.number(divide.input[1]) or 0) - 2**0.5) > 1e-6:
        return None
    chain = [divide]
    for operator in _GELU[1:]:
        following = nodes.only_reader(chain[-1].output[0], operator)
        if following is None:
            return None
        chain.append(following)
    one, product, half = chain[2], chain[3], chain[4]
    numbers = [cut[1] for node in (one, half) if (cut := nodes.split(node)) is not None and cut[1].size == 1]
    right = [float(number.reshape(())) for number in numbers] == [1.0, 0.5] and value in product.input
    return half if right else None


def _quantisers(nodes: Nodes) -> None:
    """Quantisers that INT8 products read, with their step as a number: constants are about to lose half their bits."""
    graph = nodes.graph
    read = {node.input[0] for node in graph.node if node.op_type == "Int8Linear"}
    for node in [one for one in graph.node if one.op_type == "QuantizeLinear" and one.output[0] in read]:
        step = nodes.number(node.input[1])
        nodes.replace(node, helper.make_node("Quantize", [node.input[0]], node.output, node.name, domain=DOMAIN, step=step))


__all__ = ["DOMAIN", "Nodes", "TensorProto", "fuse"]
