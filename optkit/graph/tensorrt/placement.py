"""Graphs made for TensorRT: which tensors are quantised beside the inputs of the GEMMs, and what runs in 16 bits.

TensorRT's networks are strongly typed: what a product computes in is what the graph says. So every precision is a graph
of its own, rewritten from the one that `optkit.graph.export` makes. Quantisers follow NVIDIA's "Working with quantized
types": both inputs of a GEMM; the residual branch too, so that the addition reads INT8; for INT8 attention both products'
inputs; and what GEMMs put out, for 2:4 sparsity, whose INT8 kernels write INT8. A GEMM writes INT8 only where its quantiser
stands in front of the bias and every scale is one number for the whole tensor; then whatever adds the bias reads INT8.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from optkit.core.errors import InputError
from optkit.graph.passes import constants, producers, remove_unused
from optkit.graph.products import products
from optkit.graph.tensorrt import attention
from optkit.graph.tensorrt.neighbours import bias_of, readers, source

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
    """What the GEMMs in front of an addition put out, bias included; needs ranges, and `attention`: quantising queries and
    keys without the probabilities would keep attention from being fused."""
    products: bool = False
    """What the same GEMMs put out, in front of their bias, so that they write INT8; with one scale for those that read the
    same tensor (query, key and value). Needs ranges, `attention`, and weights with a single scale each."""
    activations: bool = False
    """What the GEMM in front of an activation puts out too, likewise."""

    @property
    def needs_ranges(self) -> bool:
        return self.outputs or self.attention or self.products


def place(model: ModelProto, placement: Placement, ranges: Mapping[str, float]) -> None:
    """Insert the quantisers of a placement into a quantised graph.

    Args:
        model: changed in place.
        placement: which.
        ranges: amax by tensor, for those that `measured` names; see `optkit.graph.tensorrt.ranges`.

    Raises:
        InputError: naming the tensors whose amax is missing, or the weights that have a scale per output channel.
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
    if placement.products:
        ranges = {**ranges, **_prepare_products(graph, ranges)}
    attended = set(_attended(graph))
    if placement.attention:
        _quantise_attention(graph, ranges)
    if placement.outputs:
        for name in sorted(outputs):
            _quantise_output(graph, name, ranges[name])
    if placement.products:
        _quantise_products(graph, placement.activations, attended, ranges)
    _sort(graph)
    remove_unused(graph)


def measured(graph: GraphProto) -> list[str]:
    """Tensors whose range the placements need: what encoder GEMMs put out, bias included, and pass on as is, and what else
    attention's products read, such as rotated queries. Where a GEMM may write INT8 also what all of them put out without
    bias, and what attention puts out without that of the values."""
    found = [*_outputs(graph), *_attended(graph)]
    if not per_channel(graph):
        found += [gemm.output[0] for gemm in gemms(graph)]
        found += [without_bias(folding.context) for folding in attention.foldings(graph)]
    return list(dict.fromkeys(found))


def without_bias(context: str) -> str:
    """Name of what attention puts out, less the bias of the values."""
    return f"{context}/without_value_bias"


def per_channel(graph: GraphProto) -> list[str]:
    """Encoder GEMMs whose quantised weight has a scale per output channel."""
    made_by, known = producers(graph), constants(graph)
    weights = {gemm.name: made_by.get(gemm.input[1]) for gemm in gemms(graph)}
    return [
        name
        for name, node in weights.items()
        if node is None or node.op_type != "DequantizeLinear" or known[node.input[1]].dims
    ]


def gemms(graph: GraphProto) -> list[NodeProto]:
    """The encoder's products with a stored weight."""
    names = {product.name for product in products(graph) if product.weight and product.layer is not None}
    return [node for node in graph.node if node.name in names]


def _outputs(graph: GraphProto) -> list[str]:
    """What encoder GEMMs put out, bias included, and pass on as it is."""
    read_by, known = readers(graph), constants(graph)
    found = []
    for gemm in gemms(graph):
        bias = bias_of(gemm, read_by, known)
        output = (bias or gemm).output[0]
        if all(reader.op_type in _PASSED_ON for reader in read_by.get(output, ())):
            found.append(output)
    return found


def _attended(graph: GraphProto) -> list[str]:
    """What attention's products read, but for probabilities."""
    made_by = producers(graph)
    wanted = {product.name for product in products(graph) if product.is_attention}
    names = (name for node in graph.node if node.name in wanted for name in node.input)
    return [source(made_by, name) for name in names if made_by[name].op_type != "Softmax"]


def residuals(graph: GraphProto) -> list[NodeProto]:
    """The additions of a branch around a block that a GEMM's quantiser reads too: of two activations.

    Where LayerNorm comes before a block, no GEMM reads what goes around it, and nothing is there to share.
    """
    read_by, made_by, known = readers(graph), producers(graph), constants(graph)
    return [
        node
        for node in graph.node
        if node.op_type == "Add"
        and not any(name in known for name in node.input)
        and any(_quantiser(read_by, name) or _is_dequantised(made_by, name) for name in node.input)
    ]


def _quantiser(read_by: Mapping[str, list[NodeProto]], name: str) -> NodeProto | None:
    """The quantiser that reads a tensor, through casts to float of what is float."""
    found = read_by.get(name, [])
    behind = [after for node in found if node.op_type == "Cast" for after in read_by.get(node.output[0], [])]
    return next((node for node in [*found, *behind] if node.op_type == "QuantizeLinear"), None)


def _is_dequantised(made_by: Mapping[str, NodeProto], name: str) -> bool:
    return name in made_by and made_by[name].op_type == "DequantizeLinear"


def _share_residual(graph: GraphProto) -> None:
    """Let additions read what the next GEMM's quantiser makes of the same tensor."""
    read_by = readers(graph)
    for add in residuals(graph):
        for position, name in enumerate(add.input):
            quantize = _quantiser(read_by, name)
            if quantize is not None:
                add.input[position] = read_by[quantize.output[0]][0].output[0]


def _quantise_attention(graph: GraphProto, ranges: Mapping[str, float]) -> None:
    made_by = producers(graph)
    wanted = {product.name for product in products(graph) if product.is_attention}
    for node in [node for node in graph.node if node.name in wanted]:
        for position, name in enumerate(list(node.input)):
            amax = SOFTMAX_AMAX if made_by[name].op_type == "Softmax" else ranges[source(made_by, name)]
            node.input[position] = _pair(graph, name, amax, f"{node.name}/input_{position}")


def _quantise_output(graph: GraphProto, name: str, amax: float) -> None:
    found = readers(graph).get(name, [])
    if any(reader.op_type == "Add" for reader in found):  # others are attention's
        _let_read(found, name, _pair(graph, name, amax, f"{name}/output_quantizer"))


def _let_read(nodes: list[NodeProto], name: str, other: str) -> None:
    """Let nodes read another tensor in the place of one."""
    for node in nodes:
        for position, read in enumerate(node.input):
            if read == name:
                node.input[position] = other


def _prepare_products(graph: GraphProto, ranges: Mapping[str, float]) -> dict[str, float]:
    """Take the biases of keys and values out of the way of what their GEMMs write; returns the ranges that this changes: one
    for all GEMMs that read the same tensor."""
    if wrong := per_channel(graph):
        raise InputError(
            f"{len(wrong)} GEMMs have weights with a scale per output channel, such as {wrong[0]}: GEMMs write INT8 only "
            'with one scale for a whole weight. Quantise the model with Quantize(weights="per_tensor")'
        )
    attention.drop_key_biases(graph)
    for folding in attention.foldings(graph):
        attention.fold_value_bias(graph, folding)
        if (quantize := _quantiser(readers(graph), folding.context)) is not None:
            _set_scale(graph, quantize, ranges[without_bias(folding.context)])
    together: dict[str, list[str]] = {}
    for gemm in gemms(graph):
        together.setdefault(gemm.input[0], []).append(gemm.output[0])
    return {name: max(ranges[each] for each in names) for names in together.values() for name in names}


def _set_scale(graph: GraphProto, quantize: NodeProto, amax: float) -> None:
    """Give a quantiser, and what reads it, a scale of its own."""
    scale = f"{quantize.name}/scale"
    graph.initializer.append(_scale(amax, scale))
    for node in [quantize, *readers(graph)[quantize.output[0]]]:
        node.input[1] = scale


def _quantise_products(graph: GraphProto, activations: bool, attended: set[str], ranges: Mapping[str, float]) -> None:
    """Quantise what GEMMs put out, but for what attention's products read as it is and quantise themselves."""
    read_by, known = readers(graph), constants(graph)
    for gemm in gemms(graph):
        name = gemm.output[0]
        passed_on = (bias_of(gemm, read_by, known) or gemm).output[0]
        is_activated = any(reader.op_type not in _PASSED_ON for reader in read_by.get(passed_on, ()))
        if name in attended or (is_activated and not activations):
            continue
        _let_read(read_by[name], name, _pair(graph, name, ranges[name], f"{name}/output_quantizer"))


def _pair(graph: GraphProto, name: str, amax: float, prefix: str) -> str:
    """Append a quantiser of one tensor, symmetric INT8; returns the name of what it puts out."""
    scale, zero = f"{prefix}/scale", f"{prefix}/zero_point"
    graph.initializer.append(_scale(amax, scale))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), zero))
    ends = {"QuantizeLinear": f"{prefix}/quantized", "DequantizeLinear": f"{prefix}/dequantized"}
    source = name
    for op_type, output in ends.items():
        graph.node.append(helper.make_node(op_type, [source, scale, zero], [output], name=f"{prefix}/{op_type}"))
        source = output
    return source


def _scale(amax: float, name: str) -> TensorProto:
    return numpy_helper.from_array(np.array(max(amax, 1e-8) / 127, np.float32), name)


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
