"""One graph per precision and placement for TensorRT, audited before anything is built from it."""

import dataclasses
from pathlib import Path
from typing import Any

import onnx

from optkit.core.errors import InputError
from optkit.graph import onnx_file
from optkit.graph.audit import audit
from optkit.graph.passes import producers
from optkit.graph.products import Product, longest_sequence, products
from optkit.graph.tensorrt import attention, embeddings, ranges
from optkit.graph.tensorrt.half_precision import to_16bit
from optkit.graph.tensorrt.neighbours import MOVES, Readers, readers
from optkit.graph.tensorrt.placement import Placement, gemms, per_channel, place, residuals

SPARSE = 1.0
"""Share of groups of four that a weight has to keep for 2:4 kernels."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """How a graph is rewritten."""

    sixteen_bit: str | None = None
    """"fp16" or "bf16" for everything that is not quantised; None for float32."""
    placement: Placement | None = None
    """Quantisers to add; None for a float graph."""


FLOAT = {"fp32": Variant(), "fp16": Variant("fp16"), "bf16": Variant("bf16")}
INT8 = {
    "fp16": Variant("fp16", Placement(residual=True)),
    "fp16-attention": Variant("fp16", Placement(residual=True, attention=True)),
    "fp16-outputs": Variant("fp16", Placement(residual=True, attention=True, outputs=True)),
    "int8-out": Variant("fp16", Placement(residual=True, attention=True, products=True)),
    "int8-out-all": Variant("fp16", Placement(residual=True, attention=True, products=True, activations=True)),
    "bf16": Variant("bf16", Placement(residual=True)),
}
"""What stays float runs in the first; the second says which quantisers are added to the residual's. With "int8-out" all
GEMMs write INT8 but the one in front of the activation; with "int8-out-all" that one too, to coarser results."""


@dataclasses.dataclass(frozen=True)
class Written:
    """A rewritten graph."""

    path: Path
    products: list[Product]
    longest: int
    """Tokens that it has positions for."""
    sparse: bool
    """Every weight of the encoder is 2:4 sparse."""
    audit: dict[str, Any]
    """Counts that go into the evidence."""


def write(graph: Path, variant: Variant, path: Path) -> Written:
    """Rewrite a graph and check what came of it.

    Args:
        graph: `model.onnx` of `optkit.graph.export`, with `ranges.json` beside it where the placement needs ranges.
        variant: how.
        path: file to write.

    Raises:
        InputError: the graph has no position table, ranges are missing, a number does not fit 16 bits, or the audit finds
            a GEMM uncovered, a quantiser where none belongs, or an impossible scale; every one is named.
    """
    model = onnx_file.load(graph)
    longest = longest_sequence(model.graph)
    if longest is None:
        raise InputError(f"{graph} has no table of position ids, so its longest input is unknown. Export it with optkit")
    embeddings.unfold(model.graph)
    if variant.placement is not None:
        place(model, variant.placement, ranges.read(graph) if variant.placement.needs_ranges else {})
    folded = attention.fold_scales(model.graph) if variant.sixteen_bit else 0
    if variant.sixteen_bit:
        to_16bit(model, variant.sixteen_bit)
    model.producer_name = "optkit"
    onnx_file.save(model, path)
    onnx.checker.check_model(str(path))
    counts, sparse = _audited(path, model.graph, variant.placement)
    return Written(path, products(model.graph), longest, sparse, {**counts, "folded_scales": folded})


def is_sparse(graph: Path) -> bool:
    """Whether every weight of the encoder is 2:4 sparse."""
    return audit(graph).sparse


def is_per_tensor(graph: Path) -> bool:
    """Whether every quantised weight of the encoder has a single scale."""
    return not per_channel(onnx_file.structure(graph).graph)


def _audited(path: Path, graph: onnx.GraphProto, placement: Placement | None) -> tuple[dict[str, Any], bool]:
    found = audit(path)
    additions, made_by, read_by = residuals(graph), producers(graph), readers(graph)
    quantised = [node.name for node in additions if any(_dequantized(made_by, name) for name in node.input)]
    counts = {
        **{name: getattr(found, name) for name in ("qdq_pairs", "encoder_gemms", "covered_gemms")},
        "attention_products": found.attention_products,
        "quantized_attention_products": found.quantized_attention_products,
        "residuals": len(additions),
        "quantized_residuals": len(quantised),
        "sparse_weights": sum(share >= SPARSE for share in found.sparse_groups_kept.values()),
    }
    if placement is None:
        return counts, found.sparse
    lines = [f"{name}: an encoder GEMM with a float input" for name in found.uncovered]
    behind = (
        {node.name for gemm in gemms(graph) for node in _behind_quantiser(read_by, gemm)} if placement.products else set()
    )
    lines += [f"{name}: reads a quantised tensor" for name in found.wrongly_quantized if name not in {*quantised, *behind}]
    lines += list(found.bad_scales)
    if placement.residual and len(quantised) < len(additions):
        lines.append(f"only {len(quantised)} of {len(additions)} residual branches are quantised")
    if placement.attention and found.quantized_attention_products < found.attention_products:
        lines.append(f"{found.quantized_attention_products} of {found.attention_products} attention products are quantised")
    if lines:
        raise InputError(f"{path.name} is not as TensorRT wants it:\n" + "\n".join(f"  {line}" for line in lines))
    return counts, found.sparse


def _behind_quantiser(read_by: Readers, gemm: onnx.NodeProto) -> list[onnx.NodeProto]:
    """What reads the output of a GEMM behind a quantiser that follows it at once, transpositions and reshapes included."""
    found = read_by.get(gemm.output[0], [])
    for op_type in ("QuantizeLinear", "DequantizeLinear"):
        found = [after for node in found if node.op_type == op_type for after in read_by.get(node.output[0], [])]
    for node in found:
        found += read_by.get(node.output[0], []) if node.op_type in MOVES else []  # read on as it grows
    return found


def _dequantized(made_by: dict[str, onnx.NodeProto], name: str) -> bool:
    return name in made_by and made_by[name].op_type == "DequantizeLinear"
