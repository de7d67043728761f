"""Quantised Linear modules while they train: integers in bf16, learned scales and their gradient, some weights float."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from optkit import Quantize
from optkit.compression import quantizers
from optkit.compression.context import Context
from optkit.compression.quantized_training import BLOCK, OnGrid, Setting, training
from optkit.models.families import encoder_linears
from optkit.models.loading import LoadedModel

PLAIN = Setting(scale_rate=0, quant_noise=1)
NAME = "bert.encoder.layer.0.intermediate.dense"


@pytest.fixture
def quantised(tiny_model: LoadedModel, tiny_context: Context) -> LoadedModel:
    Quantize(calibration_examples=16).apply(tiny_model, tiny_context)
    return tiny_model


def setting(loaded: LoadedModel, context: Context, chosen: Setting) -> Any:
    together = quantizers.with_same_scale(loaded.model, next(iter(context.feeds(1))))
    return training(list(encoder_linears(loaded.model).values()), together, chosen)


def test_the_gradient_of_a_learned_step_by_hand() -> None:
    """d ŷ / d s is q - v / s within the range, and the bound where a value is clipped, as in the paper's equation 3."""
    step = torch.tensor(0.5, requires_grad=True)
    values = torch.tensor([0.6, -0.7, 100.0, -100.0], requires_grad=True)
    rounded = OnGrid.apply(values, 1 / step, -127, None, True) * step
    assert rounded.tolist() == [0.5, -0.5, 63.5, -63.5]
    for index, expected in enumerate([1 - 1.2, -1 + 1.4, 127.0, -127.0]):
        of_values, of_step = torch.autograd.grad(rounded[index], (values, step), retain_graph=True)
        assert float(of_step) == pytest.approx(expected, abs=1e-5)
        assert float(of_values[index]) == pytest.approx(1.0 if index < 2 else 0.0)


def test_the_gradient_of_a_scale_has_the_papers_factor(quantised: LoadedModel, tiny_context: Context) -> None:
    linear: Any = quantised.model.get_submodule(NAME)
    values = torch.randn(3, 5, linear.in_features) * linear.input_quantizer.amax
    scale = (linear.input_quantizer.amax / 127).requires_grad_()
    weight = linear.weight_quantizer(linear.weight).detach()
    expected = functional.linear((values / scale).clamp(-128, 127).detach().round() * 0 + _learned(values, scale), weight)
    (of_scale,) = torch.autograd.grad(expected.square().sum(), scale)
    with setting(quantised, tiny_context, Setting(scale_rate=7.0, quant_noise=1)):
        output = linear(values)
        (found,) = torch.autograd.grad((output - linear.bias).square().sum(), linear.input_quantizer.log_ratio)
    factor = 1 / math.sqrt(linear.in_features * 127)
    assert float(found) == pytest.approx(float(of_scale * scale) * 7.0 * factor, rel=1e-3)


def _learned(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The paper's quantiser, by autograd: the gradient passes the rounding, and what is clipped has none but the scale's."""
    inside = (values / scale).clamp(-128, 127)
    return (inside + (inside.round() - inside).detach()) * scale


def test_products_in_bf16_are_those_of_integers(quantised: LoadedModel, tiny_context: Context) -> None:
    """Values that are integers times their scale: bf16 would round them, the integers are exact."""
    linear: Any = quantised.model.get_submodule(NAME)
    nn.init.zeros_(linear.bias)
    integers = torch.randint(-127, 128, (64, linear.in_features)).float()
    values = integers * linear.input_quantizer.amax / 127
    exact = functional.linear(values.double(), linear.weight_quantizer(linear.weight).double())
    with setting(quantised, tiny_context, PLAIN), torch.autocast("cpu", dtype=torch.bfloat16):
        own = linear(values)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = linear(values)
    assert own.dtype == torch.bfloat16
    errors = [float((found.double() - exact).square().mean().sqrt()) for found in (own, rounded)]
    step = float((exact.to(torch.bfloat16).double() - exact).square().mean().sqrt())
    assert errors[0] < 1.6 * step < errors[1]  # two roundings to bf16, of the product's sum and of the scaled one


def test_gradients_in_bf16_pass_straight_through(quantised: LoadedModel, tiny_context: Context) -> None:
    linear: Any = quantised.model.get_submodule(NAME)
    values = (torch.randn(8, linear.in_features) * linear.input_quantizer.amax).requires_grad_()
    plain = torch.autograd.grad(linear(values).sum(), (values, linear.weight, linear.bias))
    with setting(quantised, tiny_context, PLAIN), torch.autocast("cpu", dtype=torch.bfloat16):
        own = torch.autograd.grad(linear(values).float().sum(), (values, linear.weight, linear.bias))
    for expected, found in zip(plain, own, strict=True):
        assert found.dtype == torch.float32
        assert torch.allclose(found, expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))


def test_without_bf16_and_settings_nothing_changes(quantised: LoadedModel, tiny_context: Context) -> None:
    linear: Any = quantised.model.get_submodule(NAME)
    values = torch.randn(8, linear.in_features)
    expected = linear(values)
    with setting(quantised, tiny_context, PLAIN):
        assert torch.equal(linear(values), expected)
    assert "forward" not in vars(linear)


def test_learned_scales_move_together_and_are_kept(tiny_model: LoadedModel, tiny_context: Context) -> None:
    stage = Quantize(
        calibration_examples=16,
        weights="per_tensor",
        epochs=1,
        learning_rate=1e-3,
        teacher=None,
        scale_rate=5.0,
        guard=False,
    )
    still = Quantize(calibration_examples=16, weights="per_tensor")
    start = {name: tensor.clone() for name, tensor in tiny_model.model.state_dict().items()}
    still.apply(tiny_model, tiny_context)
    before = {name: float(one.amax) for name, one in quantizers.quantisers(tiny_model.model).items()}
    tiny_model.model.load_state_dict(start, strict=False)
    stage.apply(tiny_model, tiny_context)
    after = {name: float(one.amax) for name, one in quantizers.quantisers(tiny_model.model).items()}
    assert after.keys() == before.keys() and all(after[name] != before[name] for name in after)
    for kind in ("input", "weight"):
        vectors = {
            after[f"bert.encoder.layer.1.attention.self.{name}.{kind}_quantizer"] for name in ("query", "key", "value")
        }
        assert len(vectors) == 1
    assert not any("log_ratio" in name for name in tiny_model.model.state_dict())


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_a_part_of_the_blocks_is_quantised(share: float, quantised: LoadedModel, tiny_context: Context) -> None:
    """Seen through the identity: its output is the weight that the module multiplies by."""
    torch.manual_seed(0)
    linear: Any = quantised.model.get_submodule(NAME)
    linear.input_quantizer.amax = torch.tensor(127.0)
    nn.init.zeros_(linear.bias)
    rounded = linear.weight_quantizer(linear.weight)
    with setting(quantised, tiny_context, Setting(scale_rate=0, quant_noise=share)):
        linear.train()
        found = linear(torch.eye(linear.in_features)).T
        linear.eval()
        assert torch.allclose(linear(torch.eye(linear.in_features)).T, rounded, atol=1e-6), (
            "all of them when it does not train"
        )
    blocks = torch.isclose(found, rounded, atol=1e-6).unflatten(1, (-1, BLOCK)).all(-1)
    floats = torch.isclose(found, linear.weight, atol=1e-6).unflatten(1, (-1, BLOCK)).all(-1)
    assert bool((blocks | floats).all())
    assert float(blocks.float().mean()) == pytest.approx(share, abs=0.1)
