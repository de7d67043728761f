"""Graphs made for TensorRT: which tensors are quantised beside the inputs of the GEMMs, and what runs in 16 bits.

TensorRT's networks are strongly typed: what a product computes in is what the graph says. So every precision is a graph
of its own, rewritten from the one that `optkit.graph.export` makes. Quantisers follow NVIDIA's "Working with quantized
types": both inputs of a GEMM; the residual branch too, so that the addition fuses with the GEMM before it; the outputs
of the GEMMs for 2:4 sparsity, whose INT8 kernels write INT8; and for INT8 attention both products' inputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from optkit.core.errors import InputError
from optkit.graph.passes import constants, producers, remove_unused
from optkit.graph.products import products

SOFTMAX_AMAX = 1.0
"""Amax of attention probabilities: the scale is 1/127."""
_PASSED_ON = ("Reshape", "Transpose", "Add")
"""What reads a GEMM's output as it is; what reads that of the first feed-forward GEMM is GELU, quantised behind it."""


@dataclass(frozen=True)
class Placement:
    """Choice of the tensors to quantise besides the inputs of the encoder's GEMMs."""

    residual: bool = False
    """The branch that goes around a block, with the scale of the GEMM that reads the same tensor."""
    attention: bool = False
    """Queries, keys, values and probabilities; needs ranges."""
    outputs: bool = False
    """What the GEMMs in front of an addition put out; needs ranges. Together with `attention` every GEMM is INT8 in and
    out: quantising queries and keys without the probabilities would keep attention from being fused."""

    @property
    def needs_ranges(self) -> bool:
        return self.outputs or self.attention


def place(model: ModelProto, placement: Placement, ranges: Mapping[str, float]) -> None:
    """Insert the quantisers of a placement into a quantised graph.

    Args:
        model: changed in place.
        placement: which.
        ranges: amax by tensor, for those that `measured` names; see `optkit.graph.tensorrt.ranges`.

    Raises:
        InputError: naming the tensors whose amax is missing.
    """
    graph = model.graph
    if placement.needs_ranges and (missing := sorted(set(measured(graph)) - ranges.keys())):
        raise InputError(
            f"no range was measured for {len(missing)} tensors, such as {missing[0]}: quantised outputs and INT8 "
            "attention need one for each. Measure them with optkit.graph.tensorrt.ranges.measure"
        )
    outputs = _outputs(graph)  # as they are before anything is placed
    if placement.residual:
        _share_residual(graph)
    if placement.attention:
        _quantise_attention(graph, ranges)
    if placement.outputs:
        for name in sorted(outputs):
            _quantise_output(graph, name, ranges[name])
    _sort(graph)
    remove_unused(graph)


def measured(graph: GraphProto) -> list[str]:
    """Tensors whose range `outputs` and `attention` need: what encoder GEMMs put out, bias included, and pass on as is, and
    what else attention's products read, such as rotated queries."""
    return list(dict.fromkeys([*_outputs(graph), *_attended(graph)]))


def _outputs(graph: GraphProto) -> list[str]:
    """What encoder GEMMs put out, bias included, and pass on as it is."""
    readers, known = _readers(graph), set(constants(graph))
    found = []
    gemms = {product.name for product in products(graph) if product.weight and product.layer is not None}
    for node in graph.node:
        if node.name not in gemms:
            continue
        output = _with_bias(node, readers, known)
        if all(reader.op_type in _PASSED_ON for reader in readers.get(output, ())):
            found.append(output)
    return found


def _attended(graph: GraphProto) -> list[str]:
    """What attention's products read, but for probabilities."""
    made_by = producers(graph)
    attention = {product.name for product in products(graph) if product.is_attention}
    names = (name for node in graph.node if node.name in attention for name in node.input)
    return [_source(made_by, name) for name in names if made_by[name].op_type != "Softmax"]


def residuals(graph: GraphProto) -> list[NodeProto]:
    """The additions of a branch around a block that a GEMM's quantiser reads too: of two activations.

    Where LayerNorm comes before a block, no GEMM reads what goes around it, and nothing is there to share.
    """
    readers, made_by, known = _readers(graph), producers(graph), constants(graph)
    return [
        node
        for node in graph.node
        if node.op_type == "Add"
        and not any(name in known for name in node.input)
        and any(_quantiser(readers, name) or _is_dequantised(made_by, name) for name in node.input)
    ]


def _quantiser(readers: Mapping[str, list[NodeProto]], name: str) -> NodeProto | None:
    """The quantiser that reads a tensor, through casts to float of what is float."""
    found = readers.get(name, [])
    behind = [after for node in found if node.op_type == "Cast" for after in readers.get(node.output[0], [])]
    return next((node for node in [*found, *behind] if node.op_type == "QuantizeLinear"), None)


def _is_dequantised(made_by: Mapping[str, NodeProto], name: str) -> bool:
    return name in made_by and made_by[name].op_type == "DequantizeLinear"


def _readers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    found: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def _with_bias(gemm: NodeProto, readers: Mapping[str, list[NodeProto]], known: set[str]) -> str:
    """The tensor that a GEMM puts out, after its bias where that is an addition of its own."""
    after = readers.get(gemm.output[0], [])
    if len(after) == 1 and after[0].op_type == "Add" and known.intersection(after[0].input):
        return after[0].output[0]
    return gemm.output[0]


def _share_residual(graph: GraphProto) -> None:
    """Let additions read what the next GEMM's quantiser makes of the same tensor."""
    readers = _readers(graph)
    for add in residuals(graph):
        for position, name in enumerate(add.input):
            quantize = _quantiser(readers, name)
            if quantize is not None:
                add.input[position] = readers[quantize.output[0]][0].output[0]


def _quantise_attention(graph: GraphProto, ranges: Mapping[str, float]) -> None:
    made_by = producers(graph)
    wanted = {product.name for product in products(graph) if product.is_attention}
    for node in [node for node in graph.node if node.name in wanted]:
        for position, name in enumerate(list(node.input)):
            amax = SOFTMAX_AMAX if made_by[name].op_type == "Softmax" else ranges[_source(made_by, name)]
            node.input[position] = _pair(graph, name, amax, f"{node.name}/input_{position}")


def _source(made_by: Mapping[str, NodeProto], name: str) -> str:
    """The tensor behind transpositions and reshapes, which change no value."""
    while made_by[name].op_type in ("Transpose", "Reshape"):
        name = made_by[name].input[0]
    return name


def _quantise_output(graph: GraphProto, name: str, amax: float) -> None:
    readers = _readers(graph).get(name, [])
    if not any(reader.op_type == "Add" for reader in readers):
        return  # of attention
    quantised = _pair(graph, name, amax, f"{name}/output_quantizer")
    for reader in readers:
        for position, read in enumerate(reader.input):
            if read == name:
                reader.input[position] = quantised


def _pair(graph: GraphProto, name: str, amax: float, prefix: str) -> str:
    """Append a quantiser of one tensor, symmetric INT8; returns the name of what it puts out."""
    scale, zero = f"{prefix}/scale", f"{prefix}/zero_point"
    graph.initializer.append(numpy_helper.from_array(np.array(max(amax, 1e-8) / 127, np.float32), scale))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), zero))
    ends = {"QuantizeLinear": f"{prefix}/quantized", "DequantizeLinear": f"{prefix}/dequantized"}
    source = name
    for op_type, output in ends.items():
        graph.node.append(helper.make_node(op_type, [source, scale, zero], [output], name=f"{prefix}/{op_type}"))
        source = output
    return source


def _sort(graph: GraphProto) -> None:
    """Nodes after what they read, otherwise in the order they were in."""
    made_by = producers(graph)
    done: dict[str, NodeProto] = {}

    def visit(node: NodeProto) -> None:
        stack = [node]
        while stack:
            top = stack[-1]
            first = next((made_by[n] for n in top.input if n in made_by and made_by[n].output[0] not in done), None)
            if first is not None:
                stack.append(first)
                continue
            done[top.output[0]] = top
            stack.pop()

    for node in list(graph.node):
        if node.output[0] not in done:
            visit(node)
    ordered = [NodeProto() for _ in done]
    for copy, node in zip(ordered, done.values(), strict=True):
        copy.CopyFrom(node)
    del graph.node[:]
    graph.node.extend(ordered)
