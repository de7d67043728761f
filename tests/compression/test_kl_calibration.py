"""The calibrator kl: the divergence that it adds up is the one that rounding causes, and its amax is the better for it."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from optkit import Quantize
from optkit.compression import kl_calibration, quantizers
from optkit.compression.context import Context
from optkit.models.families import encoder_linears
from optkit.models.loading import LoadedModel, inference
from optkit.tasks.classification import Classification
from optkit.tasks.regression import Regression

LAYER = "bert.encoder.layer.0"
VECTORS = [f"{LAYER}.attention.self.{name}" for name in ("query", "key", "value")]


def divergence(loaded: LoadedModel, context: Context, before: list[np.ndarray]) -> float:
    """Mean KL of the model's answers from those before."""
    after = [inference(loaded.model, context.task)(feed) for feed in context.feeds(64)]
    logs = [functional.log_softmax(torch.from_numpy(np.concatenate(one)), -1) for one in (before, after)]
    return float((logs[0].exp() * (logs[0] - logs[1])).sum(-1).mean())


def test_the_fisher_matrix_of_two_classes_by_hand() -> None:
    """On average over the signs it is p (1 - p) [[1, -1], [-1, 1]] for the probabilities p and 1 - p."""
    logits = torch.tensor([[0.3, -1.1]], requires_grad=True)
    draws = []
    for seed in range(2000):
        score = kl_calibration._fisher_score(Classification, logits, None, torch.Generator().manual_seed(seed))
        (weights,) = torch.autograd.grad(score, logits)
        draws.append(weights[0].outer(weights[0]))
    probability = float(torch.softmax(logits.detach(), -1)[0, 0])
    expected = probability * (1 - probability) * torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    assert torch.allclose(torch.stack(draws).mean(0), expected, atol=0.015)


def test_values_without_distributions_have_the_squared_distance() -> None:
    logits = torch.tensor([[0.3], [2.0]], requires_grad=True)
    score = kl_calibration._fisher_score(Regression, logits, None, torch.Generator())
    (weights,) = torch.autograd.grad(score, logits)
    assert weights.abs().tolist() == [[1.0], [1.0]]


def test_divergences_by_hand() -> None:
    """One token of two channels, amax 127 · 2: the scale is 2, 3 becomes 4 and 255 is clipped to 254."""
    values, gradient = torch.tensor([[[3.0, 255.0]]]), torch.tensor([[[10.0, 1.0]]])
    found = kl_calibration._divergences(values, gradient, 254.0)
    assert float(found[0]) == pytest.approx((10 * 1 + 1 * -1) ** 2)
    assert len(found) == len(kl_calibration.CANDIDATES) and found[-1] > found[0]


def test_a_value_that_does_not_matter_is_clipped(tiny_model: LoadedModel, tiny_context: Context) -> None:
    """A channel that is large and that no answer depends on: its range goes to the others."""
    with torch.no_grad():
        tiny_model.model.get_submodule(LAYER).attention.output.LayerNorm.bias[3] = 60.0
        tiny_model.model.get_submodule(LAYER).intermediate.dense.weight[:, 3] = 0.0
        tiny_model.model.get_submodule(LAYER).output.LayerNorm.weight[3] = 0.0
    before = [inference(tiny_model.model, tiny_context.task)(feed) for feed in tiny_context.feeds(64)]
    start = {name: tensor.clone() for name, tensor in tiny_model.model.state_dict().items()}
    found = {}
    for calibrator in ("max", "mse", "kl"):
        tiny_model.model.load_state_dict(start, strict=False)
        Quantize(calibrator=calibrator, calibration_examples=64).apply(tiny_model, tiny_context)  # type: ignore[arg-type]
        amax = float(tiny_model.model.get_submodule(f"{LAYER}.intermediate.dense").input_quantizer.amax)
        found[calibrator] = amax, divergence(tiny_model, tiny_context, before)
    assert found["max"][0] > 50 and found["kl"][0] < 10
    assert found["kl"][1] < found["mse"][1] and found["kl"][1] < found["max"][1] / 4


def test_what_reads_the_same_gets_the_same(tiny_model: LoadedModel, tiny_context: Context) -> None:
    Quantize(calibrator="kl", calibration_examples=32).apply(tiny_model, tiny_context)
    linears: dict[str, Any] = encoder_linears(tiny_model.model)
    amax = {name: float(linear.input_quantizer.amax) for name, linear in linears.items()}
    assert len({amax[name] for name in VECTORS}) == 1 and len(set(amax.values())) == 8
    assert all(quantiser.is_enabled for quantiser in quantizers.quantisers(tiny_model.model).values())
    assert len(quantizers.quantisers(tiny_model.model)) == 24
    assert not any(module._forward_pre_hooks for module in tiny_model.model.modules())


def test_long_texts_are_taken_in_pieces() -> None:
    feed = {"input_ids": np.arange(5 * 768).reshape(5, 768), "attention_mask": np.ones((5, 768), dtype=np.int64)}
    pieces = [*kl_calibration._pieces(feed)]
    assert [len(piece["input_ids"]) for piece in pieces] == [1] * 5
    assert np.array_equal(np.concatenate([piece["input_ids"] for piece in pieces]), feed["input_ids"])
    assert len([*kl_calibration._pieces({"input_ids": np.ones((32, 16))})]) == 1
