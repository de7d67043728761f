"""Check, before GPU hours are spent, of what TensorRT cannot do with a model, by its config and its graph."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optkit.core.errors import InputError
from optkit.core.json_door import read_json
from optkit.models import families

INT8_HEADS = (16, 32, 64)
"""Sizes of an attention head that INT8 attention is fused for, and `INT8_TOKENS` up to which length (NVIDIA, 2022)."""
INT8_TOKENS = 512
HEAD_STEP, LARGEST_HEAD = 8, 256
"""What tensor cores take 16-bit heads in, and the largest that fused kernels are commonly made for. TensorRT's own limits
move with its version: what a plan really fuses stands in its evidence."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    found: str
    fine: bool = True
    fix: str = ""
    """What to do about it where it is not fine."""


def of_config(config: Mapping[str, Any]) -> list[Finding]:
    """Attention head size and sequence limits of a model.

    Args:
        config: content of a Hugging Face `config.json`.

    Raises:
        InputError: it has no sizes of an encoder, or ones that cannot be.
    """
    hidden, heads, positions = families.width(config), families.heads(config), families.positions(config)
    if hidden % heads:
        raise InputError(f"config.json: hidden_size {hidden} is no multiple of num_attention_heads {heads}")
    return [_head(hidden // heads), *([_length(positions)] if positions else [])]


def _head(size: int) -> Finding:
    if size % HEAD_STEP or size > LARGEST_HEAD:
        fix = f"a multiple of {HEAD_STEP} up to {LARGEST_HEAD} would be safe: attention may run as separate products"
        return Finding("attention head", f"{size} wide", False, fix)
    if size not in INT8_HEADS:
        text = ", ".join(map(str, INT8_HEADS))
        return Finding("attention head", f"{size} wide: fits 16 bits; INT8 attention is known to be fused for {text}")
    return Finding("attention head", f"{size} wide: fits fused attention in 16 bits and in INT8")


def _length(positions: int) -> Finding:
    if positions > INT8_TOKENS + 2:  # RoBERTa's table has two rows more than it takes tokens
        return Finding(
            "longest input", f"{positions} positions: INT8 attention is known to be fused up to {INT8_TOKENS} tokens"
        )
    return Finding("longest input", f"{positions} positions: no --sequence may be longer")


def of_graph(path: Path) -> list[Finding]:
    """Q/DQ coverage of a graph, as its audit counts it."""
    from optkit.graph.audit import audit

    found = audit(path)
    covered = f"{found.covered_gemms} of {found.encoder_gemms} encoder GEMMs have both inputs quantised"
    if not found.quantized:
        return [Finding("Q/DQ", "none: TensorRT builds float32, FP16 and bf16 from this graph")]
    findings = [Finding("Q/DQ", covered)]
    if found.uncovered:
        fix = f"quantise {', '.join(found.uncovered[:3])}{', …' if len(found.uncovered) > 3 else ''}"
        findings = [Finding("Q/DQ", covered, False, fix)]
    if found.wrongly_quantized:
        names = ", ".join(found.wrongly_quantized[:3])
        findings.append(Finding("quantised by mistake", names, False, "leave LayerNorm, pooler, head and embeddings float"))
    if found.bad_scales:
        findings.append(Finding("scales", "; ".join(found.bad_scales[:3]), False, "calibrate and export again"))
    return findings


def of_model(folder: Path) -> list[Finding]:
    """`of_config` of a model's folder, and `of_graph` where a `model.onnx` lies in it.

    Raises:
        InputError: no such folder, or no `config.json` in it that can be read.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"{folder}: no config.json in it; expected the folder of a model saved by save_pretrained")
    config = read_json(path, dict[str, Any], "save the model again with save_pretrained")
    graphs = [graph for graph in (folder / "model.onnx", folder / "graph" / "model.onnx") if graph.is_file()]
    return [*of_config(config), *(finding for graph in graphs[:1] for finding in of_graph(graph))]
