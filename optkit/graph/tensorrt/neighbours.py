"""Nodes beside a node: what reads a tensor, the bias behind a GEMM, the tensor in front of transpositions."""

from collections.abc import Mapping

from onnx import GraphProto, NodeProto

Readers = Mapping[str, list[NodeProto]]
"""The nodes that read each tensor."""
MOVES = ("Transpose", "Reshape")
"""Operators that change no value."""


def readers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """The nodes that read each tensor."""
    found: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def only_reader(read_by: Readers, name: str) -> NodeProto | None:
    """The node that reads a tensor, or None where several do or none."""
    found = read_by.get(name, [])
    return found[0] if len(found) == 1 else None


def bias_of(gemm: NodeProto, read_by: Readers, known: Mapping[str, object]) -> NodeProto | None:
    """The addition of a GEMM's bias, where that is a node of its own."""
    after = only_reader(read_by, gemm.output[0])
    is_bias = after is not None and after.op_type == "Add" and any(name in known for name in after.input)
    return after if is_bias else None


def source(made_by: Mapping[str, NodeProto], name: str) -> str:
    """The tensor in front of transpositions and reshapes."""
    while name in made_by and made_by[name].op_type in MOVES:
        name = made_by[name].input[0]
    return name
