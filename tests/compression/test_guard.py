"""The guard: weights after a training are kept only where they are better on rows that it has not seen."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from optkit import Quantize
from optkit.compression import quantizers
from optkit.compression.context import Context
from optkit.compression.guard import guarded
from optkit.models.families import encoder_linears
from optkit.models.loading import LoadedModel, inference
from optkit.tasks.collate import run

STAGE = {"calibration_examples": 16, "epochs": 1, "label_weight": 0.0}


@pytest.fixture
def context(tiny_model: LoadedModel, tiny_context: Context) -> Context:
    """Surroundings in which the float model itself is the teacher."""
    answers = run(inference(tiny_model.model, tiny_context.task), tiny_context.features, 32, tiny_context.collator)
    return replace(tiny_context, teacher_logits=lambda name: answers)


def weights(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    return {name: linear.weight.detach().clone() for name, linear in encoder_linears(loaded.model).items()}


@pytest.mark.slow
def test_a_training_that_fails_leaves_the_calibrated_weights(tiny_model: LoadedModel, context: Context) -> None:
    calibrated = copy.deepcopy(tiny_model)
    Quantize(calibration_examples=16).apply(calibrated, context)
    history = Quantize(**STAGE, learning_rate=1.0).apply(tiny_model, context)
    assert history, "it has been trained"
    for name, weight in weights(calibrated).items():
        assert torch.equal(weights(tiny_model)[name], weight), name
    for name, quantiser in quantizers.quantisers(calibrated.model).items():
        assert torch.equal(quantizers.quantisers(tiny_model.model)[name].amax, quantiser.amax)
    assert len(tiny_model.remarks) == 1
    assert tiny_model.remarks[0].startswith("divergence from its teacher on ")
    assert tiny_model.remarks[0].endswith("training made it no better, and the weights from before are kept")


def test_without_the_guard_they_are_lost(tiny_model: LoadedModel, context: Context) -> None:
    before = weights(tiny_model)
    Quantize(**STAGE, learning_rate=1.0, guard=False).apply(tiny_model, context)
    assert not any(torch.equal(weight, before[name]) for name, weight in weights(tiny_model).items())
    assert tiny_model.remarks == []


def test_a_training_that_helps_is_kept(tiny_model: LoadedModel, context: Context) -> None:
    before = weights(tiny_model)
    stage = Quantize(**STAGE, learning_rate=1e-3, calibrator="percentile", percentile=80)
    stage.apply(tiny_model, context)
    assert not any(torch.equal(weight, before[name]) for name, weight in weights(tiny_model).items())
    assert tiny_model.remarks[0].endswith("the trained weights are kept")


def test_rows_that_judge_are_not_learned_from(tiny_model: LoadedModel, context: Context) -> None:
    seen: list[Context] = []
    guarded(tiny_model, Quantize(**STAGE), context, lambda part: seen.append(part) or [])
    texts = np.array(context.task.examples("train")["sentence"])  # type: ignore[union-attr]
    learned = {*texts[seen[0].features["example"][:]].tolist()}
    assert 0.8 * len(texts) < len(seen[0].features) < len(texts)
    held = {*texts.tolist()} - learned
    assert held and not held & learned
    assert "training made it no better" in tiny_model.remarks[0], "nothing was trained"


@pytest.mark.slow
def test_without_a_teacher_the_labels_judge(tiny_model: LoadedModel, tiny_context: Context) -> None:
    Quantize(epochs=2, teacher=None, learning_rate=3e-3, calibration_examples=16).apply(tiny_model, tiny_context)
    assert tiny_model.remarks[0].startswith("loss on ") and tiny_model.remarks[0].endswith("the trained weights are kept")
