"""What kernels of Triton's language share: numbers in single precision, rounding to the INT8 grid."""

# ruff: noqa: ANN001, ANN201 - Triton reads the annotations of kernels as its own
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call, no-any-return"
import triton
import triton.language as tl

_MAGIC = tl.constexpr(12582912.0)
"""1.5 · 2²³: a float32 added to it is rounded to a whole number, halves to even, which its lowest bits then hold."""


@triton.jit
def float32(number):
    """A kernel's number in single precision: a compiler may pass it in double."""
    return tl.full((), number, tl.float32)


@triton.jit
def rounded(value):
    """The nearest whole number from -128 to 127, halves to even, as INT8."""
    inside = tl.minimum(tl.maximum(value, -128.0), 127.0)
    return ((inside + _MAGIC).to(tl.int32, bitcast=True) - 0x4B400000).to(tl.int8)
