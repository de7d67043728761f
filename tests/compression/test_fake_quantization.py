"""What trains on a CPU is rounded and differentiated to the bit as Model Optimizer does it."""

import pytest
import torch

from optkit import Quantize
from optkit.compression import fake_quantization, quantizers
from optkit.compression.context import Context
from optkit.models.loading import LoadedModel


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_model_optimizers(
    precision: torch.dtype, tiny_model: LoadedModel, tiny_context: Context
) -> None:
    torch.manual_seed(0)
    Quantize(calibration_examples=16).apply(tiny_model, tiny_context)
    found = quantizers.quantisers(tiny_model.model)
    for name, quantiser in found.items():
        linear = tiny_model.model.get_submodule(name.rpartition(".")[0])
        shape = linear.weight.shape if name.endswith("weight_quantizer") else (3, 5, linear.in_features)
        values = (torch.randn(shape) * quantiser.amax).to(precision).requires_grad_()  # a third of them beyond amax
        weights = torch.randn(shape).to(precision)
        expected = quantiser(values)
        (gradient,) = torch.autograd.grad((expected * weights).sum(), values)
        with fake_quantization.fast(found.values()):
            own = quantiser(values)
            (own_gradient,) = torch.autograd.grad((own * weights).sum(), values)
        assert own.grad_fn.name() == "FakeQuantizeBackward" != expected.grad_fn.name()
        assert torch.equal(own, expected) and own.dtype == precision
        assert torch.equal(own_gradient, gradient)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_halves_are_rounded_to_even_and_zeros_stay(precision: torch.dtype) -> None:
    values = torch.tensor([[0.5, 1.5, 2.5, -300.0, 300.0], [0.1, -3.0, 0.0, 5.0, 1.0]], dtype=precision)
    rounded = fake_quantization.FakeQuantize.apply(values, torch.tensor([[127.0], [0.0]]), -127)
    assert rounded.tolist() == [[0.0, 2.0, 2.0, -127.0, 127.0], [0.0] * 5]


def test_the_model_is_given_back(tiny_model: LoadedModel, tiny_context: Context) -> None:
    Quantize(calibration_examples=16).apply(tiny_model, tiny_context)
    found = list(quantizers.quantisers(tiny_model.model).values())
    with pytest.raises(RuntimeError, match="stop"), fake_quantization.fast(found):
        assert all("forward" in vars(quantiser) for quantiser in found)
        raise RuntimeError("stop")
    assert not any("forward" in vars(quantiser) for quantiser in found)


def test_training_uses_it(tiny_model: LoadedModel, tiny_context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    backward = fake_quantization.FakeQuantize.backward
    monkeypatch.setattr(
        fake_quantization.FakeQuantize, "backward", staticmethod(lambda *given: steps.append(1) or backward(*given))
    )
    Quantize(calibration_examples=16, epochs=0.05, teacher=None).apply(tiny_model, tiny_context)
    assert len(steps) >= len(quantizers.quantisers(tiny_model.model))
