"""The learning rate that is chosen: by the held-out part of train alone, and what is left of the others."""

import copy
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from optkit import Sparsify
from optkit.compression.context import Context
from optkit.compression.retrain import retrain
from optkit.models.loading import LoadedModel, inference
from optkit.tasks.collate import run
from optkit.tasks.held_out import held_out
from optkit.training.loop import TrainingError

STAGE = Sparsify(epochs=2, teacher=None)
ONE_STEP = {"steps": 1, "warmup_ratio": 0.0}


def weights(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}


def chosen(stage: Sparsify, loaded: LoadedModel, context: Context) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the peak learning rate of the training that was kept, and the weights."""
    history = retrain(loaded, stage, context, "it")
    return max(entry["learning_rate"] for entry in history), weights(loaded)


@pytest.mark.slow
def test_the_rate_that_learns_is_taken(
    tiny_model: LoadedModel, tiny_context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    rates = (1e-8, 3e-3, 1e-7)
    alone = copy.deepcopy(tiny_model)
    with caplog.at_level(logging.INFO):
        peak, found = chosen(STAGE.model_copy(update={"learning_rates": rates}), tiny_model, tiny_context)
    assert peak == pytest.approx(3e-3, rel=0.5)
    assert tiny_model.remarks == [
        "it: learning rate 0.003, of 1e-08, 0.003, 1e-07, by the loss on 24 training examples held out"
    ]
    assert [f"learning rate {rate:g}: loss" in caplog.text for rate in rates] == [True] * 3
    rest, _ = held_out(tiny_context.task, tiny_context.features)
    _, expected = chosen(STAGE.model_copy(update={"learning_rate": 3e-3}), alone, tiny_context.part(rest.tolist()))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items()), "as if trained with it alone"


@pytest.mark.slow
def test_teachers_answer_the_features_that_are_theirs(tiny_model: LoadedModel, tiny_context: Context) -> None:
    """Were they shifted by what is held out, the student would learn nothing of a teacher that is right."""
    labels = np.array(tiny_context.features["labels"])
    right = [np.array([-5.0, 5.0] if label else [5.0, -5.0], dtype=np.float32) for label in labels]
    context = replace(tiny_context, teacher_logits=lambda name: right)
    stage = Sparsify(epochs=4, learning_rates=[3e-3, 1e-8], label_weight=0.0)
    retrain(tiny_model, stage, context, "it")
    found = np.stack(run(inference(tiny_model.model, context.task), context.features, 64, context.collator))
    assert (found.argmax(1) == labels).mean() > 0.9


def test_a_rate_that_diverges_is_left_out(
    tiny_model: LoadedModel, tiny_context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    peak, _ = chosen(STAGE.model_copy(update={"learning_rates": (1e30, 1e-3)}), tiny_model, tiny_context)
    assert peak == pytest.approx(1e-3, rel=0.5)
    assert "learning rate 1e+30 is left out: the loss is" in caplog.text
    # after a single step nothing has looked at the loss but the examples held out
    retrain(tiny_model, STAGE.model_copy(update={"learning_rates": (1e30, 1e-3), **ONE_STEP}), tiny_context, "it")
    assert tiny_model.remarks[-1].startswith("it: learning rate 0.001, of 1e+30, 0.001, ")
    with pytest.raises(TrainingError, match="with any of the learning rates"):
        retrain(tiny_model, STAGE.model_copy(update={"learning_rates": (1e30,)}), tiny_context, "it")
