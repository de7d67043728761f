"""Attention of sequences that follow each other without padding, in Triton's language (Dao et al. 2022, arXiv 2205.14135).

Each program takes some queries of one head of one sequence and goes through that sequence's keys once, with a running
maximum and sum. Its result can be rounded to the INT8 grid of the product that follows.
"""

# ruff: noqa: ANN001, ANN202 - Triton reads the annotations of kernels as its own
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call, no-any-return"
import torch
import triton
import triton.language as tl
from torch.library import triton_op, wrap_triton

from optkit.engines.torch.rounding import float32, rounded

TILES = [
    triton.Config({"QUERIES": queries, "KEYS": keys}, num_warps=warps, num_stages=stages)
    for queries, keys, warps, stages in ((128, 64, 4, 3), (128, 128, 8, 2), (64, 64, 4, 3), (128, 64, 8, 3))
]
"""Queries of a program and keys of a step, timed against each other."""
_LOG2_E = 1.4426950408889634


@triton.autotune(TILES, key=["longest", "WIDTH"])
@triton.jit
def _kernel(
    query,
    key,
    value,
    ends,
    out,
    scale,
    inverse,
    stride,
    columns,
    longest,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    QUANTISED: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
):
    head, sequence = tl.program_id(1), tl.program_id(2)
    start, end = tl.load(ends + sequence), tl.load(ends + sequence + 1)
    row = start + tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    if start + tl.program_id(0) * QUERIES < end:
        at, place = tl.arange(0, WIDTH), tl.arange(0, KEYS)
        column = head * SIZE + at
        real = (at < SIZE)[None, :]
        asked = tl.load(
            query + row.to(tl.int64)[:, None] * stride + column[None, :], mask=(row < end)[:, None] & real, other=0.0
        )
        largest = tl.full((QUERIES,), -1e30, tl.float32)
        total = tl.zeros((QUERIES,), tl.float32)
        result = tl.zeros((QUERIES, WIDTH), tl.float32)
        for first in range(start, end, KEYS):
            there = first + place
            exists = there < end
            offsets = there.to(tl.int64)[:, None] * stride + column[None, :]
            keys = tl.load(key + offsets, mask=exists[:, None] & real, other=0.0)
            scores = tl.dot(asked, keys.T) * float32(scale)
            scores = tl.where(exists[None, :], scores, -1e30)
            most = tl.maximum(largest, tl.max(scores, 1))
            shares = tl.exp2(scores - most[:, None])
            fade = tl.exp2(largest - most)
            values = tl.load(value + offsets, mask=exists[:, None] & real, other=0.0)
            result = tl.dot(shares.to(values.dtype), values, result * fade[:, None])
            total = total * fade + tl.sum(shares, 1)
            largest = most
        result = result / total[:, None]
        outs = out + row.to(tl.int64)[:, None] * columns + column[None, :]
        written = rounded(result * float32(inverse)) if QUANTISED else result.to(out.dtype.element_ty)
        tl.store(outs, written, mask=(row < end)[:, None] & real)


@triton_op("optkit::packed_attention", mutates_args={})
def packed_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends: torch.Tensor,
    longest: int,
    size: int,
    scale: float,
    step: float = 0.0,
) -> torch.Tensor:
    """softmax(scale · Q Kᵀ) V within each sequence.

    Args:
        query: 16 bits [tokens, heads · size], rows as far apart as those of `key` and `value`.
        key: like it.
        value: like it.
        ends: int32 [sequences + 1], where each sequence begins, and the last ends.
        longest: tokens of the longest sequence; what lies beyond in a longer one is not computed.
        size: of a head.
        scale: of the scores.
        step: of the INT8 grid that the result is rounded to; 0 for 16 bits.

    Returns:
        [tokens, heads · size], in the type of `value` or int8.
    """
    tokens, columns = query.shape
    out = torch.empty(tokens, columns, dtype=torch.int8 if step else value.dtype, device=query.device)
    wrap_triton(_kernel)[lambda meta: (triton.cdiv(longest, meta["QUERIES"]), columns // size, ends.shape[0] - 1)](
        query,
        key,
        value,
        ends,
        out,
        scale * _LOG2_E,
        1 / step if step else 1.0,
        query.stride(0),
        columns,
        longest,
        SIZE=size,
        WIDTH=max(16, triton.next_power_of_2(size)),
        QUANTISED=bool(step),
    )
    return out
