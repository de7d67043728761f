"""How quantised Linear modules compute while they train: on integers in bf16, with learned scales, with some weights float.

* bf16 cannot hold an INT8 value times its scale, and would round it again. It holds the integers exactly, so in bf16
  products are taken of integers and their sums are scaled, as INT8 hardware does.
* Learned step sizes (Esser et al. 2020, arXiv 1902.08153): scales get a gradient, and values that are clipped get none.
* Quant-Noise (Fan et al. 2021, arXiv 2004.07320): in each forward only some blocks of the weights are quantised, so that the
  others get gradients without bias.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.autograd import Function
from torch.nn import functional

from optkit.compression.fake_quantization import INT8_MAX, NOTHING

BLOCK = 8
"""Neighbouring input channels of a weight that Quant-Noise quantises together."""


@dataclass(frozen=True)
class Setting:
    """Deviations from plain quantization-aware training."""

    scale_rate: float
    """Learning rate of the scales' logarithms, as a multiple of the weights'; 0 leaves the scales as they are."""
    quant_noise: float
    """Share of the weights' blocks that are quantised in each forward."""


@contextmanager
def training(linears: Sequence[Any], together: Sequence[Sequence[Any]], setting: Setting) -> Iterator[None]:
    """Let quantised Linear modules compute as a setting says; when the block ends, what was learned of scales is their amax.

    Args:
        linears: modules with calibrated input and weight quantisers.
        together: all their quantisers, those that have the same scale beside one another.
        setting: how they compute.
    """
    learned = together if setting.scale_rate else ()
    for group in learned:
        log_ratio = nn.Parameter(torch.zeros(group[0].amax.numel(), device=group[0].amax.device))
        for quantiser in group:
            quantiser.log_ratio = log_ratio
    for linear in linears:
        linear.forward = partial(_forward, linear, linear.forward, setting)
    try:
        yield
    finally:
        for linear in linears:
            del linear.forward
        for quantiser in (quantiser for group in learned for quantiser in group):
            quantiser.amax = _amax(quantiser, setting).detach()
            del quantiser.log_ratio


def _forward(linear: Any, own: Any, setting: Setting, values: torch.Tensor) -> torch.Tensor:
    """Return the Linear's output, [..., out]."""
    noisy = linear.training and setting.quant_noise < 1
    sixteen = torch.is_autocast_enabled(values.device.type)
    integers = sixteen and torch.get_autocast_dtype(values.device.type) == torch.bfloat16
    if not (noisy or integers or setting.scale_rate):
        output: torch.Tensor = own(values)
        return output
    kept = _float_blocks(linear.weight, setting.quant_noise) if noisy else None
    amax = _amax(linear.input_quantizer, setting), _amax(linear.weight_quantizer, setting)
    inputs, input_scale = _on_grid(linear.input_quantizer, values, amax[0], setting)
    weight, weight_scale = _on_grid(linear.weight_quantizer, linear.weight, amax[1], setting, kept)
    if not integers:
        return functional.linear(inputs * input_scale, weight * weight_scale, linear.bias)
    product = functional.linear(inputs.to(torch.bfloat16), weight.to(torch.bfloat16)).float()
    scaled = product * (input_scale * weight_scale.reshape(-1))
    return (scaled if linear.bias is None else scaled + linear.bias).to(torch.bfloat16)


def _on_grid(
    quantiser: Any, values: torch.Tensor, amax: torch.Tensor, setting: Setting, kept: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a tensor's integers, still float, and their scale; the scale of channels of zeros is 0."""
    some = amax > NOTHING
    scale = torch.where(some, amax / INT8_MAX, 0.0)
    inverse = torch.where(some, INT8_MAX / torch.where(some, amax, 1.0), 0.0)
    if setting.scale_rate:
        factor = 1 / math.sqrt(values.shape[-1] * INT8_MAX)
        scale, inverse = _gradient_scaled(scale, factor), _gradient_scaled(inverse, factor)
    lowest = -INT8_MAX if quantiser.narrow_range else -INT8_MAX - 1
    return OnGrid.apply(values, inverse, lowest, kept, bool(setting.scale_rate)), scale


def _amax(quantiser: Any, setting: Setting) -> torch.Tensor:
    """Return a quantiser's amax in float32, as far as it has been learned."""
    amax: torch.Tensor = quantiser.amax.float()
    if not setting.scale_rate:
        return amax
    return amax * torch.exp(setting.scale_rate * quantiser.log_ratio).reshape(amax.shape)


def _gradient_scaled(value: torch.Tensor, factor: float) -> torch.Tensor:
    """Return a value whose gradient is multiplied by a factor."""
    return value * factor + (value - value * factor).detach()


def _float_blocks(weight: torch.Tensor, quantised: float) -> torch.Tensor:
    """Draw which weights [out, in] stay float: whole blocks of a row."""
    out, inner = weight.shape
    drawn = torch.rand(out, -(-inner // BLOCK), device=weight.device) >= quantised
    return drawn.repeat_interleave(BLOCK, dim=1)[:, :inner]


class OnGrid(Function):
    """Values over their scale, rounded and clipped to INT8's integers."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, values: torch.Tensor, inverse: torch.Tensor, lowest: int, kept: torch.Tensor | None, masked: bool
    ) -> torch.Tensor:
        """Return the integers, float32.

        Args:
            ctx: autograd's.
            values: of any shape, float32 or of 16 bits.
            inverse: reciprocal of the scale, of a shape that goes with the values'.
            lowest: of the integers.
            kept: where values are not rounded; None rounds all.
            masked: whether what is clipped gets no gradient; else gradients pass straight through (Bengio et al. 2013,
                arXiv 1308.3432).
        """
        grid = values.float() * inverse
        ctx.masked, ctx.type = masked, values.dtype
        inside = [values, (grid >= lowest) & (grid <= INT8_MAX)] if masked else []
        ctx.save_for_backward(inverse, *inside)
        if kept is None:
            return grid.round_().clamp_(lowest, INT8_MAX)
        return torch.where(kept, grid, grid.round().clamp_(lowest, INT8_MAX))

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, None, None, None]:
        """Return the gradients of the values and of the reciprocal scale."""
        inverse, *more = ctx.saved_tensors
        if not ctx.masked:
            return (gradient * inverse).to(ctx.type), None, None, None, None
        values, inside = more
        gradient = gradient * inside
        of_inverse = (gradient * values.float()).sum_to_size(inverse.shape) if ctx.needs_input_grad[1] else None
        return (gradient * inverse).to(ctx.type), of_inverse, None, None, None
