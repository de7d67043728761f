"""What a graph really quantises: counted in the file, not taken from the configuration that was meant to make it so."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import GraphProto, NodeProto, numpy_helper

from optkit.core.errors import GateError, InputError
from optkit.graph import onnx_file
from optkit.graph.passes import constants, producers
from optkit.graph.products import PRODUCER, kept_float, layers_of, module_of
from optkit.models.layers import plain
from optkit.models.two_to_four import groups_kept


@dataclasses.dataclass(frozen=True)
class Audit:
    """What a graph holds. A GEMM is a product with a stored weight; attention's products of activations are apart."""

    qdq_pairs: int
    """Activation quantisers (`QuantizeLinear` with its `DequantizeLinear`) and INT8 weights together."""
    encoder_gemms: int
    covered_gemms: int
    """Encoder GEMMs whose two inputs are both quantised."""
    uncovered: tuple[str, ...]
    """Encoder GEMMs with a float input, by node name, but those of modules that stay float on purpose."""
    wrongly_quantized: tuple[str, ...]
    """Nodes that belong in float and read a quantised tensor: LayerNorm, pooler, classifier, embeddings."""
    bad_scales: tuple[str, ...]
    """Quantisers whose scale is not finite and positive, or whose zero point is not 0, with what was found."""
    attention_products: int
    quantized_attention_products: int
    sparse_groups_kept: dict[str, float]
    """Share of groups of 4 input channels with at least 2 zeros, by module; 1.0 is 2:4 sparse."""
    kept_float: tuple[str, ...]
    """Modules of the encoder that stay float on purpose, as the graph's metadata tell."""
    covered_share: float
    """Share of the encoder GEMMs' multiply-adds that the covered ones have."""
    sparse: bool
    """Every weight of the encoder is 2:4 sparse; the pooler and the head stay dense."""

    @property
    def quantized(self) -> bool:
        """Whether anything in the graph is quantised."""
        return self.qdq_pairs > 0

    def to_dict(self) -> dict[str, Any]:
        """Return the audit in JSON types."""
        return dataclasses.asdict(self)

    def check_quantised(self, kept: Iterable[str] = ()) -> None:
        """Raise `InputError` naming every node of a quantised graph that is not as it should be.

        Args:
            kept: names of the encoder's Linear modules that stay float on purpose.
        """
        expected, found = set(map(plain, kept)), set(self.kept_float)
        if not self.encoder_gemms:
            raise InputError("The graph has no GEMMs in the layers of an encoder, so that nothing of it is quantised.")
        lines = [f"  {name}: an encoder GEMM with a float input, expected both quantised" for name in self.uncovered]
        lines += [f"  {name}: reads a quantised tensor, expected float" for name in self.wrongly_quantized]
        lines += [f"  {line}" for line in self.bad_scales]
        lines += [f"  {name}: stays float, expected quantised" for name in sorted(found - expected)]
        lines += [f"  {name}: is quantised, expected float" for name in sorted(expected - found)]
        if not lines:
            return
        raise InputError(
            f"The graph covers {self.covered_gemms} of {self.encoder_gemms} encoder GEMMs and has {len(lines)} faults:\n"
            + "\n".join(lines)
            + "\nQuantise the inputs and weights of the encoder's Linear layers alone, calibrate them, and export again."
        )

    def check_sparse(self, expected: Iterable[str]) -> None:
        """Raise `GateError` naming every module of `expected` whose weight in the graph is not 2:4."""
        kept = {name: self.sparse_groups_kept.get(plain(name), 0.0) for name in expected}
        lines = [f"  {name}: {share:.4%} of its groups of four have two zeros" for name, share in kept.items() if share < 1]
        if lines:
            found_broken = f"2:4 sparsity is broken in the graph in {len(lines)} of {len(kept)} weights:"
            raise GateError("\n".join([found_broken, *lines]))


@dataclasses.dataclass(frozen=True)
class _View:
    """A graph with its look-ups made once."""

    graph: GraphProto
    made_by: dict[str, NodeProto]
    known: dict[str, onnx.TensorProto]

    def dequantizer(self, name: str) -> NodeProto | None:
        """The `DequantizeLinear` a tensor comes from, seen through transpositions and reshapes."""
        node = self.made_by.get(name)
        while node is not None and node.op_type in ("Transpose", "Reshape"):
            node = self.made_by.get(node.input[0])
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def weight(self, gemm: NodeProto) -> np.ndarray | None:
        """Stored values [in, out] of a product's weight; None where it multiplies two activations."""
        transposed = gemm.op_type == "Gemm" and _attribute(gemm, "transB")
        name = gemm.input[1]
        while name not in self.known:
            node = self.made_by.get(name)
            if node is None or node.op_type not in ("Transpose", "DequantizeLinear", "QuantizeLinear"):
                return None
            transposed ^= node.op_type == "Transpose"
            name = node.input[0]
        array = numpy_helper.to_array(self.known[name])
        return array.T if transposed else array


def _attribute(node: NodeProto, name: str) -> bool:
    return any(attribute.name == name and attribute.i for attribute in node.attribute)


def audit(path: Path) -> Audit:
    """Audit the graph in a file. An encoder whose products are convolutions, such as SqueezeBERT, has no GEMMs.

    Raises:
        InputError: another wrote it, and there is no encoder in it as far as the names of its nodes tell.
    """
    model = onnx_file.load(path)
    graph = model.graph
    view = _View(graph, producers(graph), constants(graph))
    products = [node for node in graph.node if node.op_type in ("MatMul", "Gemm")]
    weights = {node.name: view.weight(node) for node in products}
    number = layers_of(graph).number
    inside = [node for node in products if number(module_of(node.name)) is not None]
    if not inside and model.producer_name != PRODUCER:
        raise InputError(
            f"{path} holds {len(products)} matrix products, none of them under the name of a layer such as "
            "/encoder/layer.0/. The audit reads graphs that optkit.graph.export wrote; export the model again."
        )
    gemms = [node for node in inside if weights[node.name] is not None]
    left = kept_float(graph)
    covered = [node for node in gemms if all(view.dequantizer(name) for name in node.input[:2])]
    attention = [node for node in inside if weights[node.name] is None]
    sizes = {name: array.size for name, array in weights.items() if array is not None}
    kept = {module_of(name): _groups_kept(array) for name, array in weights.items() if array is not None}
    return Audit(
        qdq_pairs=sum(node.op_type == "DequantizeLinear" for node in graph.node),
        encoder_gemms=len(gemms),
        covered_gemms=len(covered),
        uncovered=tuple(node.name for node in gemms if node not in covered and module_of(node.name) not in left),
        wrongly_quantized=tuple(_wrongly_quantized(view, gemms, attention)),
        bad_scales=tuple(_bad_scales(view)),
        attention_products=len(attention),
        quantized_attention_products=sum(all(view.dequantizer(n) for n in node.input[:2]) for node in attention),
        sparse_groups_kept=kept,
        kept_float=tuple(sorted(left & {module_of(node.name) for node in gemms if node not in covered})),
        covered_share=sum(sizes[node.name] for node in covered) / max(1, sum(sizes[node.name] for node in gemms)),
        sparse=bool(gemms) and all(kept[module_of(node.name)] == 1 for node in gemms),
    )


def _wrongly_quantized(view: _View, gemms: list[NodeProto], attention: list[NodeProto]) -> list[str]:
    """Nodes that read a quantised tensor and are neither an encoder GEMM nor one of attention's products."""
    allowed = {node.name for node in [*gemms, *attention]}
    plumbing = ("QuantizeLinear", "DequantizeLinear", "Transpose", "Reshape")
    return [
        node.name
        for node in view.graph.node
        if node.name not in allowed
        and node.op_type not in plumbing
        and any(view.dequantizer(name) is not None for name in node.input if name)
    ]


def _bad_scales(view: _View) -> list[str]:
    """A line for every quantiser whose numbers cannot be right."""
    lines = []
    for node in view.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale = numpy_helper.to_array(view.known[node.input[1]])
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            lines.append(f"{node.name}: scale {scale.min():.4g} to {scale.max():.4g}, expected finite and above 0")
        if len(node.input) > 2 and (zero_point := numpy_helper.to_array(view.known[node.input[2]])).any():
            lines.append(f"{node.name}: zero point {zero_point.min()} to {zero_point.max()}, expected 0")
    return lines


def _groups_kept(weight: np.ndarray) -> float:
    """Share of the groups of four that are 2:4 in a weight [in, out], as a product reads it."""
    return groups_kept(torch.from_numpy(np.array(weight.T, np.float32)))
