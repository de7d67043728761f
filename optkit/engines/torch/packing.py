"""Graphs that compute the tokens that exist, one after the other, and nothing else.

The graph of a model whose attention is masked by padding alone gets three inputs more, which
`optkit.engines.torch.packed_batch` makes of the mask on the host. Behind the embeddings the existing tokens are gathered
into one row; attention knows where a sequence ends; whatever looks at places, such as the pooler, gets its padding back.
"""

from typing import NamedTuple

from onnx import GraphProto, NodeProto, TensorProto, helper

from optkit.engines.torch.graph_nodes import Nodes
from optkit.engines.torch.int8_products import DOMAIN
from optkit.engines.torch.packed_batch import INPUTS
from optkit.graph.passes import remove_unused

_PRODUCTS, _QUANTISERS = ("Int8Linear", "Float8Linear"), ("Quantize", "QuantizeFloat8")
_OF_A_MASK = ("Unsqueeze", "Cast", "Sub", "Mul")
_OF_ONE = ("Erf", "Tanh", "Sigmoid", "Relu", "Clip", "Cast", "LayerNormalization", "Split", *_QUANTISERS, *_PRODUCTS)
_OF_TWO = ("Add", "Sub", "Mul", "Div", "Pow")
_PROJECTING = ("Split", "MatMul", "Add", "Cast", *_QUANTISERS, *_PRODUCTS)


class _Attention(NamedTuple):
    """One attention with the nodes around it that split and join heads."""

    node: NodeProto
    joined: NodeProto
    inputs: tuple[str, str, str]
    size: int
    """Numbers of a head."""


def pack(graph: GraphProto) -> bool:
    """Make a fused graph compute on existing tokens alone, in place, where it is one of a model that this is right for.

    Args:
        graph: after `optkit.engines.torch.fusions.fuse`.

    Returns:
        Whether it does now; if not, the graph is as it was.
    """
    nodes = Nodes(graph)
    found = [_heads(nodes, node) for node in graph.node if node.op_type == "Attention"]
    attention = [one for one in found if one is not None]
    masks = {one.node.input[3] for one in attention if len(one.node.input) == 4}
    softmaxes = any(node.op_type == "Softmax" for node in graph.node)
    if not attention or len(attention) < len(found) or softmaxes or len(masks) != 1 or not _of_padding(nodes, masks.pop()):
        return False
    before = GraphProto()
    before.CopyFrom(graph)
    for one in attention:
        attributes = {"size": one.size, "scale": helper.get_node_attr_value(one.node, "scale")}
        inputs, last = [*one.inputs, INPUTS[2], graph.input[0].name], one.joined
        quantize = nodes.only_reader(last.output[0], "Quantize")
        if quantize is not None:
            last, attributes["step"] = quantize, helper.get_node_attr_value(quantize, "step")
        name = one.node.name
        nodes.replace(last, helper.make_node("PackedAttention", inputs, last.output, name, domain=DOMAIN, **attributes))
    remove_unused(graph)
    if not _Rewriting(graph).run():
        graph.CopyFrom(before)
        return False
    graph.input.extend(
        [
            helper.make_tensor_value_info(INPUTS[0], TensorProto.INT64, ["tokens"]),
            helper.make_tensor_value_info(INPUTS[1], TensorProto.INT64, ["batch", "sequence"]),
            helper.make_tensor_value_info(INPUTS[2], TensorProto.INT32, ["ends"]),
        ]
    )
    return True


def _heads(nodes: Nodes, node: NodeProto) -> _Attention | None:
    """An attention's inputs before heads are split, and the node that joins them; None if it looks otherwise."""
    sources, sizes = [], set()
    for name, order in zip(node.input[:3], ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True):
        turned = nodes.source(name, "Transpose")
        shaped = nodes.source(turned.input[0], "Reshape") if turned is not None else None
        shape = nodes.array(shaped.input[1]) if shaped is not None else None
        if turned is None or shaped is None or shape is None or shape.size != 4:
            return None
        if list(helper.get_node_attr_value(turned, "perm")) != order:
            return None
        sources.append(shaped.input[0])
        sizes.add(int(shape[3]))
    turned = nodes.only_reader(node.output[0], "Transpose")
    joined = nodes.only_reader(turned.output[0], "Reshape") if turned is not None else None
    if joined is None or len(sizes) > 1 or min(sizes) < 1 or min(sizes) % 8:
        return None
    return _Attention(node, joined, (sources[0], sources[1], sources[2]), sizes.pop())


def _of_padding(nodes: Nodes, mask: str) -> bool:
    """Whether a mask is made of the attention mask alone, the same for every query."""
    while mask != "attention_mask":
        node = nodes.source(mask, *_OF_A_MASK)
        inputs = [name for name in node.input if name not in nodes.known] if node is not None else []
        if len(inputs) != 1:
            return False
        mask = inputs[0]
    return True


class _Rewriting:
    """Gathers the tokens in front of the first layer, and brings the padding back where places matter."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph, self.nodes = graph, Nodes(graph)
        self.packed: set[str] = set()
        self.renamed: dict[str, str] = {}
        self.padded: dict[str, str] = {}
        self.made: list[NodeProto] = []

    def run(self) -> bool:
        """Rewrite; return whether every attention got packed inputs."""
        starts = self._starts()
        if len(starts) != 1:
            return False
        for node in list(self.graph.node):
            self._rewrite(node, starts)
            for name in node.output:
                if name in starts:
                    self._unpad(name)
        if any(name in self.packed for name in (output.name for output in self.graph.output)):
            return False
        attended = [node for node in self.made if node.op_type == "PackedAttention"]
        done = all(name in self.packed for node in attended for name in node.input[:3])
        if done:
            del self.graph.node[:]
            self.graph.node.extend(self.made)
        return done

    def _starts(self) -> set[str]:
        """What the first layer's queries, keys and values are projected from."""
        found: set[str] = set()
        after: set[str] = set()
        for node in self.graph.node:
            if node.op_type == "PackedAttention" or after.intersection(node.input):
                if node.op_type == "PackedAttention" and not after.intersection(node.input[:3]):
                    found.update(self._projected_from(name) for name in node.input[:3])
                after.update(node.output)
        return found

    def _projected_from(self, name: str) -> str:
        while (node := self.nodes.source(name, *_PROJECTING)) is not None:
            inputs = [one for one in node.input if one and one not in self.nodes.known]
            if len(inputs) != 1:
                break
            name = inputs[0]
        return name

    def _unpad(self, name: str) -> None:
        made = f"{name}/packed"
        self.made.append(helper.make_node("Unpad", [name, INPUTS[0]], [made], f"{name}/Unpad", domain=DOMAIN))
        self.renamed[name] = made
        self.packed.add(made)

    def _rewrite(self, node: NodeProto, starts: set[str]) -> None:
        computed = [self.renamed.get(name, name) for name in self._computed(node)]
        if any(name in self.packed for name in computed) and self._is_per_token(node, computed):
            for place, name in enumerate(node.input):
                node.input[place] = self.renamed.get(name, name)
            self.packed.update(node.output)
        else:
            for place, name in enumerate(node.input):
                if name in self.packed:
                    node.input[place] = self._repad(name)
        self.made.append(node)

    def _computed(self, node: NodeProto) -> list[str]:
        if node.op_type == "PackedAttention":
            return list(node.input[:3])
        return [name for name in node.input if name and name not in self.nodes.known]

    def _is_per_token(self, node: NodeProto, computed: list[str]) -> bool:
        """Whether a node does the same to each token, whatever row it stands in."""
        if not all(name in self.packed for name in computed):
            return False
        constants = [self.nodes.known[name] for name in node.input if name in self.nodes.known]
        if node.op_type == "MatMul":
            return len(computed) == 1 and node.input[1] in self.nodes.known and len(constants[0].dims) == 2
        if node.op_type in _OF_TWO:
            return all(len(tensor.dims) <= 1 for tensor in constants)
        axis = {"LayerNormalization": "axis", "Split": "axis"}.get(node.op_type)
        last = axis is None or helper.get_node_attr_value(node, axis) in (-1, 2)
        return last and node.op_type in (*_OF_ONE, "PackedAttention")

    def _repad(self, name: str) -> str:
        if name not in self.padded:
            self.padded[name] = f"{name}/padded"
            inputs = [name, INPUTS[1]]
            self.made.append(helper.make_node("Repad", inputs, [self.padded[name]], f"{name}/Repad", domain=DOMAIN))
        return self.padded[name]
