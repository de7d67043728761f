"""Quantisers, and the nodes that `optkit.engines.torch.fusions` and `.packing` put into a graph.

On a GPU the products and the attention are kernels of Triton's language, of cuBLAS (FP8) and of cuSPARSELt (2:4); on a CPU,
where no engine has such nodes, they are what tests compare the kernels and the graphs with.
"""

from collections.abc import Mapping

import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn import functional as F

from optkit.engines.torch.host_values import TYPES, Attributes, Operator, Value
from optkit.engines.torch.packed_batch import WHOLE

FLOAT8_MOST = 448.0
"""The largest number of E4M3."""


def _quantize(attributes: Attributes, value: torch.Tensor, scale: torch.Tensor, zero: Value = None) -> Value:
    return _rounded(value, _along(scale, value, attributes.get("axis", 1)).float())


def _dequantize(attributes: Attributes, value: torch.Tensor, scale: torch.Tensor, zero: Value = None) -> Value:
    return value.to(scale.dtype) * _along(scale, value, attributes.get("axis", 1))


def _along(scale: torch.Tensor, value: torch.Tensor, axis: int) -> torch.Tensor:
    """A scale for every entry of an axis, in the shape that goes with a tensor."""
    return (
        scale
        if scale.numel() == 1
        else scale.reshape([-1 if place == axis % value.dim() else 1 for place in range(value.dim())])
    )


def _attention(attributes: Attributes, query: Value, key: Value, value: Value, mask: Value = None) -> Value:
    """softmax(scale · Q Kᵀ + mask) V of [batch, heads, sequence, size], keys transposed."""
    return F.scaled_dot_product_attention(query, key.transpose(-1, -2), value, mask, scale=attributes["scale"])


def _packed_attention(attributes: Attributes, query: Value, key: Value, value: Value, ends: Value, ids: Value) -> Value:
    """Attention within each of the sequences that follow each other in [1, tokens, heads · size]."""
    if query.device.type == "cpu":
        heads = [one.reshape(one.shape[1], -1, attributes["size"]) for one in (query, key, value)]
        # for tests alone: a mask of tokens by tokens
        sequence = torch.searchsorted(ends, torch.arange(query.shape[1], dtype=ends.dtype), right=True)
        mask = sequence[:, None] == sequence[None, :]
        query, key, value = (one.transpose(0, 1) for one in heads)
        found = F.scaled_dot_product_attention(query, key, value, mask, scale=attributes["scale"]).transpose(0, 1)
        found = found.reshape(1, found.shape[0], -1)
        return _rounded(found, attributes["step"]) if attributes.get("step") else found
    from optkit.engines.torch.packed_attention import packed_attention  # needs Triton's language

    rows, step = (one.squeeze(0) for one in (query, key, value)), attributes.get("step", 0.0)
    return packed_attention(*rows, ends, ids.shape[1], attributes["size"], attributes["scale"], step).unsqueeze(0)


def _unpad(attributes: Attributes, value: Value, tokens: Value) -> Value:
    torch._check(tokens.shape[0] % WHOLE == 0)
    return value.reshape(-1, value.shape[-1]).index_select(0, tokens).unsqueeze(0)


def _repad(attributes: Attributes, value: Value, places: Value) -> Value:
    return value.squeeze(0).index_select(0, places.reshape(-1)).reshape(*places.shape, -1)


def _int8_linear(attributes: Attributes, value: Value, weight: Value, scale: Value, bias: Value) -> Value:
    """INT8 [..., in] times INT8 [out, in], scaled, with bias; through GELU, clipped and quantised where they are given."""
    rows = value.reshape(-1, value.shape[-1])
    if value.device.type == "cpu":
        found = F.linear(rows.double(), weight.double()).float() * scale + bias
        found = (
            _rounded(_gelu(attributes, found), attributes["step"]) if attributes.get("gelu") else _of_kind(attributes, found)
        )
    else:
        from optkit.engines.torch.int8_linear import int8_linear  # needs Triton's language

        kind, high, step = TYPES[attributes["to"]], attributes.get("high", 3e38), attributes.get("step", 0.0)
        found = int8_linear(rows, weight, scale, bias, kind, high, step)
    return found.reshape([*value.shape[:-1], weight.shape[0]])


def _gelu(attributes: Attributes, value: torch.Tensor) -> torch.Tensor:
    return torch.clamp(F.gelu(value), max=attributes["high"])


def _of_kind(attributes: Attributes, value: torch.Tensor) -> torch.Tensor:
    return value.to(TYPES[attributes["to"]])


def _float8_linear(attributes: Attributes, value: Value, weight: Value, left: Value, right: Value, bias: Value) -> Value:
    """E4M3 [..., in] times E4M3 [out, in], with one scale each; through GELU, clipped and quantised where they are given."""
    rows, kind = value.reshape(-1, value.shape[-1]), TYPES[attributes["to"]]
    found = torch._scaled_mm(rows, weight.t(), left, right, bias=bias, out_dtype=kind, use_fast_accum=True)
    if attributes.get("gelu"):
        found = _float8(_gelu(attributes, found.float()), attributes["step"])
    return found.reshape([*value.shape[:-1], weight.shape[0]])


def _float8(value: torch.Tensor, step: float) -> torch.Tensor:
    return torch.clamp(value.float() / step, -FLOAT8_MOST, FLOAT8_MOST).to(torch.float8_e4m3fn)


def _sparse_linear(attributes: Attributes, value: Value, weight: Value) -> Value:
    """16 bits [..., in] times a compressed 2:4 weight [out, in]."""
    return _times_sparse(attributes, value, weight, None, None)


def _sparse_int8_linear(attributes: Attributes, value: Value, weight: Value, scale: Value, bias: Value) -> Value:
    """What `_int8_linear` does, with a compressed 2:4 weight."""
    found = _times_sparse(attributes, value, weight, scale, TYPES[attributes["to"]]).float() + bias
    return _rounded(_gelu(attributes, found), attributes["step"]) if attributes.get("gelu") else _of_kind(attributes, found)


def _times_sparse(attributes: Attributes, value: Value, weight: Value, scale: Value, kind: torch.dtype | None) -> Value:
    """The product by cuSPARSELt, whose weight is its left operand: its result is transposed by itself, or here."""
    rows = value.reshape(-1, value.shape[-1])
    tokens = rows.shape[0]
    if not statically_known_true(tokens % WHOLE == 0):
        rows = F.pad(rows, (0, 0, 0, -tokens % WHOLE))
    turned, algorithm = bool(attributes["turned"]), attributes["algorithm"]
    found = torch._cslt_sparse_mm(weight, rows.t(), alpha=scale, out_dtype=kind, transpose_result=turned, alg_id=algorithm)
    return (found if turned else found.t()).narrow(0, 0, tokens).reshape([*value.shape[:-1], weight.shape[0]])


def _rounded(value: torch.Tensor, step: torch.Tensor | float) -> torch.Tensor:
    return torch.clamp(torch.round(value.float() / step), -128, 127).to(torch.int8)


ENCODERS: Mapping[str, Operator] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "Quantize": lambda attributes, value: _rounded(value, attributes["step"]),
    "Int8Linear": _int8_linear,
    "QuantizeFloat8": lambda attributes, value: _float8(value, attributes["step"]),
    "Float8Linear": _float8_linear,
    "SparseLinear": _sparse_linear,
    "SparseInt8Linear": _sparse_int8_linear,
    "Attention": _attention,
    "PackedAttention": _packed_attention,
    "Unpad": _unpad,
    "Repad": _repad,
}
"""Functions by the node's name: of its attributes and its inputs."""
