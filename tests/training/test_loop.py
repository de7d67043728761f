"""The training loop on a toy task: what it minimises, at which learning rate, and what it says when it cannot."""

import copy
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.optim.optimizer import register_optimizer_step_pre_hook

from optkit.compression.context import Context
from optkit.core.errors import OptkitError
from optkit.models.loading import LoadedModel, inference
from optkit.recipe.training import Training
from optkit.tasks.base import Task
from optkit.tasks.classification import Classification
from optkit.tasks.collate import run
from optkit.training import loop, losses
from optkit.training.loop import Batches, TrainingError, autocast_type, train
from optkit.training.losses import Batch

pytestmark = pytest.mark.slow

task_loss = losses.task_loss(Classification)

BATCH_SIZE, PER_EPOCH = 16, 16


def fit(
    loaded: LoadedModel, context: Context, loss: Any = task_loss, seed: int = 0, **settings: Any
) -> list[dict[str, float]]:
    batches = Batches(context.features, context.collator, BATCH_SIZE, seed, context.task.targets)
    training = context.training.model_copy(update=settings)
    return train(loaded.model, batches, loss, training, seed, context.logs)


def weights(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}


def nothing_to_learn(model: Any, batch: Batch) -> torch.Tensor:
    return model(**batch.inputs)["logits"].sum() * 0


def test_the_toy_task_is_learnt(tiny_model: LoadedModel, tiny_context: Context, tiny_task: Task) -> None:
    history = fit(tiny_model, tiny_context, epochs=4)
    assert history[0]["loss"] > 0.4 and history[-1]["loss"] < 0.05
    features = tiny_task.encode("dev", tiny_model.tokenizer)
    logits = run(inference(tiny_model.model, tiny_context.task), features, 32, tiny_context.collator)
    assert tiny_task.score(tiny_task.predict(features, logits))["accuracy"] > 95
    assert not tiny_model.model.training


def test_the_same_seed_gives_the_same_weights(tiny_model: LoadedModel, tiny_context: Context) -> None:
    tiny_model.model.bert.embeddings.dropout.p = 0.3
    start, ends = weights(tiny_model), []
    for seed in (1, 1, 2):
        tiny_model.model.load_state_dict(start)
        torch.rand(seed)  # whatever was drawn before
        fit(tiny_model, tiny_context, seed=seed, epochs=0.5)
        ends.append(weights(tiny_model))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in start)
    assert not torch.equal(ends[0]["classifier.weight"], ends[2]["classifier.weight"])


def test_long_batches_are_split_on_a_cpu(tiny_model: LoadedModel, tiny_context: Context, monkeypatch) -> None:
    start, seen, ends = weights(tiny_model), [], []

    def watched(model: Any, batch: Batch) -> torch.Tensor:
        seen.append(batch.inputs["input_ids"].shape)
        return task_loss(model, batch)

    longest = max(tiny_context.features["length"])
    for pairs in (loop._CPU_PAIRS, 5 * longest**2):
        monkeypatch.setattr(loop, "_CPU_PAIRS", pairs)
        tiny_model.model.load_state_dict(start)
        seen.clear()
        history = fit(tiny_model, tiny_context, watched, epochs=1)
        assert all(rows * (tokens - 7) ** 2 <= pairs for rows, tokens in seen)  # padded to a multiple of eight
        ends.append((len(seen), history))
    assert ends[0][0] == PER_EPOCH and ends[1][0] >= 2 * PER_EPOCH
    assert [entry["step"] for entry in ends[0][1]] == [entry["step"] for entry in ends[1][1]]
    assert ends[0][1][0]["loss"] == pytest.approx(ends[1][1][0]["loss"], rel=1e-4)


def test_accumulating_gradients_takes_the_same_steps(tiny_model: LoadedModel, tiny_context: Context) -> None:
    start, ends = weights(tiny_model), []
    for parts in (1, 4, 1000):
        tiny_model.model.load_state_dict(start)
        history = fit(tiny_model, tiny_context, epochs=1, gradient_accumulation=parts)
        assert history[-1]["step"] == PER_EPOCH - 1
        ends.append(
            (
                history[0]["loss"],
                run(inference(tiny_model.model, tiny_context.task), tiny_context.features, 64, tiny_context.collator),
            )
        )
    for loss, logits in ends[1:]:
        assert loss == pytest.approx(ends[0][0], rel=1e-4)
        assert np.abs(np.stack(logits) - np.stack(ends[0][1])).max() < 0.02
    assert np.abs(np.stack(ends[0][1])).max() > 0.3


def test_the_learning_rate_rises_and_falls(tiny_model: LoadedModel, tiny_context: Context) -> None:
    history = fit(tiny_model, tiny_context, epochs=2.5, warmup_ratio=0.25, learning_rate=1.0, max_grad_norm=1e-12)
    assert [entry["step"] for entry in history] == [9, 19, 29, 39]
    assert [entry["epoch"] for entry in history[:-1]] == [round(step / PER_EPOCH, 4) for step in (9, 19, 29)]
    expected = [9 / 10, 21 / 30, 11 / 30, 1 / 30]  # ten steps up, thirty down
    assert [entry["learning_rate"] for entry in history] == pytest.approx(expected)


def test_a_model_whose_training_failed_is_as_before(tiny_model: LoadedModel, tiny_context: Context) -> None:
    """In bf16, whose autocast would stay around its forward otherwise."""
    features, collator = tiny_context.features, tiny_context.collator
    before = run(inference(tiny_model.model, tiny_context.task), features, 32, collator)

    def fail(model: Any, batch: Batch) -> torch.Tensor:
        return model(**batch.inputs)["logits"].sum() * 0 + float("nan")

    with pytest.raises(TrainingError):
        fit(tiny_model, tiny_context, fail, steps=1, precision="bf16", learning_rate=1e-30, weight_decay=0.0)
    assert not tiny_model.model.training
    after = run(inference(tiny_model.model, tiny_context.task), features, 32, collator)
    assert np.array_equal(np.stack(after), np.stack(before)), "bf16 would have rounded them"


def test_a_cosine_falls_from_the_peak_to_zero(tiny_model: LoadedModel, tiny_context: Context) -> None:
    settings = {"schedule": "cosine", "warmup_ratio": 0.0, "learning_rate": 1.0, "max_grad_norm": 1e-12}
    history = fit(tiny_model, tiny_context, steps=40, **settings)
    expected = [0.5 * (1 + math.cos(math.pi * step / 40)) for step in (9, 19, 29, 39)]
    assert [entry["learning_rate"] for entry in history] == pytest.approx(expected)


def test_a_constant_rate_stays_at_the_peak_after_the_warm_up(tiny_model: LoadedModel, tiny_context: Context) -> None:
    settings = {"schedule": "constant", "warmup_ratio": 0.5, "learning_rate": 1e-3}
    history = fit(tiny_model, tiny_context, steps=40, **settings)
    expected = [1e-3 * 9 / 20, 1e-3 * 19 / 20, 1e-3, 1e-3]
    assert [entry["learning_rate"] for entry in history] == pytest.approx(expected)


def test_a_budget_in_steps_goes_before_epochs(tiny_model: LoadedModel, tiny_context: Context) -> None:
    history = fit(tiny_model, tiny_context, epochs=2, steps=PER_EPOCH + 5)
    assert history[-1]["step"] == PER_EPOCH + 4


def test_training_ends_with_the_average(tiny_model: LoadedModel, tiny_context: Context) -> None:
    """That of two steps by hand: the first keeps 2/11 of the start, the second 3/12 of what was."""
    start, ends = weights(tiny_model), []
    for steps, ema in ((1, 0.0), (2, 0.0), (2, 0.9)):
        tiny_model.model.load_state_dict(start)
        fit(tiny_model, tiny_context, steps=steps, ema=ema, warmup_ratio=0.0, learning_rate=1e-3)
        ends.append(weights(tiny_model))
    first, second, average = ends
    for name, begin in start.items():
        expected = (begin * 2 / 11 + first[name] * 9 / 11) * 0.25 + second[name] * 0.75
        torch.testing.assert_close(average[name], expected, rtol=1e-4, atol=1e-6)


def test_the_first_step_of_a_warm_up_moves_nothing(tiny_model: LoadedModel, tiny_context: Context) -> None:
    before = weights(tiny_model)
    fit(tiny_model, tiny_context, epochs=2 / PER_EPOCH, warmup_ratio=0.5, learning_rate=1e-3)
    moved = (tiny_model.model.state_dict()["classifier.weight"] - before["classifier.weight"]).abs().max()
    assert 0 < float(moved) < 1.1e-3  # one step of Adam, not two


def test_gradients_are_clipped(tiny_model: LoadedModel, tiny_context: Context) -> None:
    norms: list[float] = []

    def measured(model: Any, batch: Batch) -> torch.Tensor:
        return 1e4 * task_loss(model, batch)

    def note(optimiser: Any, *_: Any) -> None:
        gradients = [p.grad for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.linalg.vector_norm(torch.cat([gradient.flatten() for gradient in gradients]))))

    handle = register_optimizer_step_pre_hook(note)
    try:
        fit(tiny_model, tiny_context, measured, epochs=0.25, max_grad_norm=0.5)
        fit(tiny_model, tiny_context, measured, epochs=0.25, max_grad_norm=1e9)
    finally:
        handle.remove()
    assert norms[:4] == pytest.approx([0.5] * 4, rel=1e-3)
    assert min(norms[4:]) > 10


def test_weights_decay_but_biases_and_norms_do_not(tiny_model: LoadedModel, tiny_context: Context) -> None:
    before = weights(tiny_model)
    settings = {"epochs": 1 / PER_EPOCH, "warmup_ratio": 0.0, "learning_rate": 0.1, "weight_decay": 0.5}
    fit(tiny_model, tiny_context, nothing_to_learn, **settings)
    for name, tensor in tiny_model.model.state_dict().items():
        factor = 1.0 if name.endswith("bias") or "LayerNorm" in name else 1 - 0.1 * 0.5
        assert torch.allclose(tensor, factor * before[name], atol=1e-7), name


def test_frozen_parameters_stay(tiny_model: LoadedModel, tiny_context: Context) -> None:
    embeddings = tiny_model.model.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    before = embeddings.clone()
    fit(tiny_model, tiny_context, epochs=0.25)
    assert torch.equal(embeddings, before)


@pytest.mark.parametrize("parts", [1, 3])
def test_the_loss_gets_the_indices_of_its_rows(parts: int, tiny_model: LoadedModel, tiny_context: Context) -> None:
    seen: list[int] = []
    labels = tiny_context.features["labels"][:]

    def loss(model: Any, batch: Batch) -> torch.Tensor:
        assert batch.targets["labels"].tolist() == [labels[index] for index in batch.indices]
        words = tiny_context.features[batch.indices]["input_ids"]
        assert [row[: len(own)].tolist() for row, own in zip(batch.inputs["input_ids"], words, strict=True)] == words
        seen.extend(batch.indices)
        return task_loss(model, batch)

    fit(tiny_model, tiny_context, loss, epochs=2, gradient_accumulation=parts)
    size = len(labels)
    assert sorted(seen[:size]) == sorted(seen[size:]) == list(range(size))
    assert seen[:size] != seen[size:]


def test_a_loss_that_is_not_finite_stops_with_its_place(tiny_model: LoadedModel, tiny_context: Context) -> None:
    steps: list[list[int]] = []

    def loss(model: Any, batch: Batch) -> torch.Tensor:
        steps.append(list(batch.indices))
        return task_loss(model, batch) * (float("nan") if len(steps) == 13 else 1.0)

    with pytest.raises(TrainingError) as error:
        fit(tiny_model, tiny_context, loss, epochs=2, warmup_ratio=0.5, learning_rate=1e-3)
    assert len(steps) <= 20
    assert str(error.value) == (
        f"the loss is nan at step 12 with learning rate {1e-3 * 12 / 16:.3g}, on the training features {steps[12]}; "
        "lower the learning rate, raise warmup_ratio, or train in fp32"
    )
    assert issubclass(TrainingError, OptkitError)


def test_a_loss_that_is_not_finite_at_the_very_end(tiny_model: LoadedModel, tiny_context: Context) -> None:
    def loss(model: Any, batch: Batch) -> torch.Tensor:
        return task_loss(model, batch) * float("inf")

    with pytest.raises(TrainingError, match=r"the loss is inf at step 0 with learning rate 0\.003, on the training feat"):
        fit(tiny_model, tiny_context, loss, epochs=1 / PER_EPOCH)


def test_training_curves_are_written(tiny_model: LoadedModel, tiny_context: Context) -> None:
    history = fit(tiny_model, tiny_context, epochs=1.5)
    events = list(tiny_context.logs.rglob("events.out.tfevents.*"))
    assert len(events) == 1
    curves = EventAccumulator(str(events[0])).Reload()
    for name in ("loss", "learning_rate"):
        assert [event.value for event in curves.Scalars(name)] == pytest.approx([entry[name] for entry in history])


def test_the_history_says_the_mean_loss_since_its_last_entry(tiny_model: LoadedModel, tiny_context: Context) -> None:
    losses: list[float] = []

    def loss(model: Any, batch: Batch) -> torch.Tensor:
        value = task_loss(model, batch)
        losses.append(value.item())
        return value

    history = fit(tiny_model, tiny_context, loss, epochs=1)
    assert [entry["loss"] for entry in history] == pytest.approx([np.mean(losses[:10]), np.mean(losses[10:])], rel=1e-5)


def test_something_is_called_after_every_epoch(tiny_model: LoadedModel, tiny_context: Context) -> None:
    called: list[torch.Tensor] = []
    batches = tiny_context.batches(BATCH_SIZE)
    training = tiny_context.training.model_copy(update={"epochs": 2.5})

    def after() -> None:
        called.append(tiny_model.model.classifier.weight.detach().clone())

    train(tiny_model.model, batches, task_loss, training, 0, tiny_context.logs, after_epoch=after)
    assert len(called) == 2
    assert not torch.equal(called[0], called[1]) and not torch.equal(called[1], tiny_model.model.classifier.weight)


def test_batches_are_augmented_anew_each_time(tiny_context: Context) -> None:
    given: list[dict] = []

    def shifted(feed: Any) -> Any:
        given.append(dict(feed))
        return {**feed, "input_ids": feed["input_ids"] + len(given)}

    plain, augmented = (tiny_context.batches(4, change) for change in (None, shifted))
    device, indices = torch.device("cpu"), [3, 1]
    ids = plain.collate(indices, device).inputs["input_ids"]
    for times in (1, 2):
        batch = augmented.collate(indices, device)
        assert torch.equal(batch.inputs["input_ids"], ids + times)
        assert batch.indices == indices
        assert batch.targets["labels"].tolist() == [tiny_context.features["labels"][index] for index in indices]
    assert set(given[0]) == set(batch.inputs) == {"input_ids", "attention_mask", "token_type_ids"}


def test_recipes_of_different_precisions_train_one_after_the_other(tiny_model: LoadedModel, tiny_context: Context) -> None:
    seen = []

    def loss(model: Any, batch: Batch) -> torch.Tensor:
        seen.append(torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"))
        return task_loss(model, batch)

    for precision in ("bf16", "fp32", "bf16"):
        history = fit(tiny_model, replace(tiny_context), loss, epochs=2 / PER_EPOCH, precision=precision)
        assert np.isfinite(history[-1]["loss"])
    assert seen == [True] * 2 + [False] * 2 + [True] * 2
    assert tiny_model.model.dtype == torch.float32


def test_a_trained_model_computes_in_float32_again(tiny_model: LoadedModel, tiny_context: Context) -> None:
    fit(tiny_model, tiny_context, epochs=1, precision="bf16")
    fresh = copy.deepcopy(tiny_model.model)
    fresh.__dict__.pop("forward", None)  # the class's own
    trained, expected = (
        np.stack(run(inference(model, tiny_context.task), tiny_context.features, 64, tiny_context.collator))
        for model in (tiny_model.model, fresh)
    )
    assert np.array_equal(trained, expected)


def test_auto_is_what_the_device_computes_in() -> None:
    assert autocast_type(Training()) in {"fp32", "bf16", "fp16"}
    assert [autocast_type(Training(precision=name)) for name in ("fp32", "bf16", "fp16")] == ["fp32", "bf16", "fp16"]


def test_fewer_features_than_a_batch(tiny_model: LoadedModel, tiny_context: Context) -> None:
    few = replace(tiny_context, features=tiny_context.features.select(range(3)))
    assert fit(tiny_model, few, epochs=2)[-1]["step"] == 1


def test_nothing_is_printed_to_standard_output(
    tiny_model: LoadedModel, tiny_context: Context, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fit(tiny_model, tiny_context, epochs=0.25)
    assert re.sub(r"\s", "", capfd.readouterr().out) == ""
