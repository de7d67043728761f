"""Model Optimizer's fake quantization while a model trains on a CPU, in a third of the time and to the same bits.

Its own code makes a new tensor in every step of the way.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.autograd import Function
from torch.nn import Module

INT8_MAX = 127
NOTHING = 2.0**-24
"""An amax that is no larger is that of a channel of zeros, as Model Optimizer has it."""


@contextmanager
def fast(quantisers: Iterable[Module]) -> Iterator[None]:
    """Calibrated quantisers of 8 bits compute by `FakeQuantize`; as they were when the block ends.

    Those on a GPU, where Model Optimizer has a kernel of its own, and those told to cut gradients off are left alone.
    """
    changed = list(quantisers)
    for quantiser in changed:
        quantiser.forward = partial(_forward, quantiser, quantiser.forward)
    try:
        yield
    finally:
        for quantiser in changed:
            del quantiser.forward


def _forward(quantiser: Module, own: Any, values: torch.Tensor) -> torch.Tensor:
    if values.device.type != "cpu" or not quantiser._pass_through_bwd:
        return own(values)
    return FakeQuantize.apply(values, quantiser.amax, -INT8_MAX if quantiser.narrow_range else -INT8_MAX - 1)


class FakeQuantize(Function):
    """Round to the symmetric INT8 grid of amax / 127 and clip; gradients pass straight through (Bengio et al. 2013,
    arXiv 1308.3432)."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, amax: torch.Tensor, lowest: int) -> torch.Tensor:  # type: ignore[override]
        """Quantise and dequantise.

        Args:
            ctx: autograd's.
            values: of any shape, float32 or bf16.
            amax: float32, of a shape that goes with the values'; where it is 0 all becomes 0.
            lowest: of the grid's integers.

        Returns:
            The values on their grid, in their own type.
        """
        some = amax > NOTHING
        scale = torch.where(some, amax.new_tensor(INT8_MAX) / amax, 0.0)
        grid = torch.mul(values, scale) if values.dtype == torch.float32 else values.float().mul_(scale)
        return grid.round_().clamp_(lowest, INT8_MAX).div_(torch.where(some, scale, 1.0)).to(values.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # type: ignore[override]
        """The gradient as it is."""
        return gradient, None, None
