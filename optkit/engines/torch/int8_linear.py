"""INT8 products on a GPU in Triton's language, with scale, bias, GELU, clip and the next quantiser in their epilogue.

Written for Hopper cards, where loads of both operands go straight to its matrix units (wgmma). The exact `erf` would cost
half as much as the product itself, so GELU is the tanh of Hendrycks and Gimpel (2016, arXiv 1606.08415), by the card's own
approximation: it differs by 5e-4 at most, far less than a step of the INT8 grid it is rounded to.
"""

# ruff: noqa: ANN001, ANN202 - Triton reads the annotations of kernels as its own
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call, no-any-return"
import os

import torch
import triton
import triton.language as tl
from torch.library import triton_op, wrap_triton

from optkit.engines.torch.rounding import float32, rounded

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
"""Whether kernels run in Triton's interpreter, which has no instructions of the card."""
TILES = [
    triton.Config({"ROWS": rows, "COLUMNS": columns, "DEPTH": depth}, num_warps=warps, num_stages=stages)
    for rows, columns, depth, warps, stages in (
        (128, 256, 128, 8, 3),
        (128, 128, 64, 4, 4),
        (64, 128, 128, 4, 4),
        (64, 64, 128, 4, 5),
        (32, 64, 128, 4, 5),
    )
]
"""Sizes of the tiles, timed against each other for each shape: those on top won for many tokens, the others for few."""


@triton.jit
def _tanh(value):
    if INTERPRETED:
        return 2.0 / (1.0 + tl.exp(-2.0 * value)) - 1.0
    return tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [value], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def _gelu(value):
    return 0.5 * value * (1.0 + _tanh(value * (0.7978845608 + 0.0356774081 * value * value)))


@triton.autotune(TILES, key=["rows", "columns", "depth", "QUANTISED"])
@triton.jit
def _kernel(
    left,
    right,
    scale,
    bias,
    out,
    high,
    inverse,
    rows,
    columns,
    depth,
    GELU: tl.constexpr,
    QUANTISED: tl.constexpr,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    # programs that follow each other share rows of the weight, which then come from the cache
    across, down = tl.cdiv(columns, COLUMNS), tl.cdiv(rows, ROWS)
    place = tl.program_id(0)
    first = place // (8 * across) * 8
    height = min(down - first, 8)
    row = (first + place % (8 * across) % height) * ROWS + tl.arange(0, ROWS)
    column = place % (8 * across) // height * COLUMNS + tl.arange(0, COLUMNS)
    at = tl.arange(0, DEPTH)
    lefts = left + (row % rows).to(tl.int64)[:, None] * depth + at[None, :]
    rights = right + (column % columns)[None, :] * depth + at[:, None]
    total = tl.zeros((ROWS, COLUMNS), tl.int32)
    for start in range(0, depth, DEPTH):
        if WHOLE:
            one, other = tl.load(lefts), tl.load(rights)
        else:
            one = tl.load(lefts, mask=(start + at < depth)[None, :], other=0)
            other = tl.load(rights, mask=(start + at < depth)[:, None], other=0)
        total = tl.dot(one, other, total, out_dtype=tl.int32)
        lefts += DEPTH
        rights += DEPTH
    exists = column < columns
    value = total.to(tl.float32) * tl.load(scale + column, mask=exists, other=0.0)[None, :]
    value += tl.load(bias + column, mask=exists, other=0.0)[None, :]
    if GELU:
        value = tl.minimum(_gelu(value), float32(high))
    outs = out + row.to(tl.int64)[:, None] * columns + column[None, :]
    inside = (row < rows)[:, None] & exists[None, :]
    written = rounded(value * float32(inverse)) if QUANTISED else value.to(out.dtype.element_ty)
    tl.store(outs, written, mask=inside)


@triton_op("optkit::int8_linear", mutates_args={})
def int8_linear(
    value: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    kind: torch.dtype,
    high: float = 3e38,
    step: float = 0.0,
) -> torch.Tensor:
    """Multiply INT8 matrices exactly, then scale and add a bias in float32; with a step also GELU, clip and quantise.

    Args:
        value: int8 [rows, depth], contiguous.
        weight: int8 [columns, depth], contiguous.
        scale: float32 [columns], the product of both scales.
        bias: float32 [columns].
        kind: type of the result without a step.
        high: the most that GELU gives.
        step: of the INT8 grid that GELU's result is rounded to; 0 for neither GELU nor rounding.

    Returns:
        [rows, columns] of type `kind`, or int8.
    """
    (rows, depth), columns = value.shape, weight.shape[0]
    out = torch.empty(rows, columns, dtype=torch.int8 if step else kind, device=value.device)
    wrap_triton(_kernel)[lambda meta: (triton.cdiv(rows, meta["ROWS"]) * triton.cdiv(columns, meta["COLUMNS"]),)](
        value,
        weight,
        scale,
        bias,
        out,
        high,
        1 / step if step else 1.0,
        rows,
        columns,
        depth,
        GELU=bool(step),
        QUANTISED=bool(step),
        WHOLE=depth % 128 == 0,
    )
    return out
