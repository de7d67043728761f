"""Training within a stage: what of the baseline's settings a stage takes over, and who teaches."""

import copy
from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch

from optkit import Quantize, Sparsify, Training
from optkit.compression.context import Context
from optkit.compression.retrain import answers_loss, retrain, settings_of
from optkit.core.errors import GateError, InputError
from optkit.models.families import encoder_linears
from optkit.models.loading import LoadedModel, inference
from optkit.tasks import registry, unlabelled
from optkit.tasks.collate import run


def test_a_stage_takes_from_the_baseline_what_it_does_not_set() -> None:
    baseline = Training(batch_size=8, weight_decay=0.2, epochs=7, learning_rate=3e-4).for_task({})
    own = settings_of(Sparsify(epochs=2, warmup_ratio=0.3), baseline)
    assert (own.epochs, own.learning_rate, own.warmup_ratio) == (2, 3e-4, 0.3)
    assert (own.batch_size, own.weight_decay) == (8, 0.2)
    assert settings_of(Quantize(epochs=1, learning_rate=2e-6), baseline).learning_rate == 2e-6


@pytest.mark.parametrize("label_weight", [0.0, 1.0])
def test_the_teacher_has_what_the_labels_leave(label_weight: float, tiny_model: LoadedModel, tiny_context: Context) -> None:
    """A teacher that always says the opposite: whom the model believes is decided by the weight."""
    labels = np.array(tiny_context.features["labels"])
    opposite = [np.array([5.0, -5.0] if label else [-5.0, 5.0], dtype=np.float32) for label in labels]
    context = replace(tiny_context, teacher_logits=lambda name: opposite)
    retrain(tiny_model, Sparsify(epochs=3, label_weight=label_weight), context, "retraining")
    found = np.stack(run(inference(tiny_model.model, context.task), context.features, 64, context.collator)).argmax(1)
    assert (found == labels).mean() > 0.95 if label_weight else (found == labels).mean() < 0.05


def test_without_a_teacher_nobody_is_asked(tiny_model: LoadedModel, tiny_context: Context) -> None:
    history = retrain(tiny_model, Sparsify(epochs=1, teacher=None), tiny_context, "retraining")
    assert history[-1]["step"] == 15  # the context's teacher fails when it is asked


@pytest.mark.parametrize(("given", "seen"), [(None, 0.25), (0.5, 0.5), (0.0, 0.0)])
def test_dropout_is_the_stages_and_given_back_also_after_a_failure(
    given: float | None, seen: float, tiny_model: LoadedModel, tiny_context: Context
) -> None:
    dropout = tiny_model.model.bert.embeddings.dropout
    dropout.p = 0.25

    def fail(*_: object) -> None:
        assert dropout.p == seen
        raise ZeroDivisionError

    tiny_model.model.register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError):
        retrain(tiny_model, Sparsify(epochs=1, dropout=given, teacher=None), tiny_context, "retraining")
    assert dropout.p == 0.25


def test_without_epochs_nothing_is_trained(tiny_model: LoadedModel, tiny_context: Context) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_model.model.state_dict().items()}
    assert retrain(tiny_model, Quantize(), tiny_context, "retraining") == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny_model.model.state_dict().items())


@pytest.mark.slow
def test_every_stage_can_follow_representations_with_its_zeros_held(tiny_model: LoadedModel, tiny_context: Context) -> None:
    """A sparse model whose every hidden state is to become that of the dense one."""
    dense = replace(tiny_model, model=copy.deepcopy(tiny_model.model))
    Sparsify(epochs=0).apply(tiny_model, tiny_context)
    zeros = {name: linear.weight == 0 for name, linear in encoder_linears(tiny_model.model).items()}
    context = replace(tiny_context, teacher_model=lambda name: dense)
    stage = Sparsify(epochs=0, representation_epochs=2, representation_learning_rate=1e-3)
    history = retrain(tiny_model, stage, context, "retraining")
    assert [entry["step"] for entry in history] == [9, 19, 29, 31]
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    for name, linear in encoder_linears(tiny_model.model).items():
        assert torch.equal(linear.weight == 0, zeros[name]), name
    assert not any(module._forward_hooks for module in [*tiny_model.model.modules(), *dense.model.modules()])


def test_a_group_that_breaks_while_representations_are_followed(tiny_model: LoadedModel, tiny_context: Context) -> None:
    dense = replace(tiny_model, model=copy.deepcopy(tiny_model.model))
    Sparsify(epochs=0).apply(tiny_model, tiny_context)
    broken = "bert.encoder.layer.1.output.dense"

    def break_one(*_: object) -> None:
        tiny_model.model.get_submodule(broken).weight.data[0, :4] = 1.0

    tiny_model.model.register_forward_pre_hook(break_one)
    context = replace(tiny_context, teacher_model=lambda name: dense)
    with pytest.raises(
        GateError, match=rf"after an epoch of it: representations in 1 of 12 Linear modules:\n  {broken}: 99\."
    ):
        retrain(tiny_model, Sparsify(epochs=0, representation_epochs=2), context, "it")


def test_a_dense_model_is_trained_as_it_is(tiny_model: LoadedModel, tiny_context: Context) -> None:
    before = {name: weight.detach().clone() for name, weight in tiny_model.model.named_parameters() if "layer" in name}
    retrain(tiny_model, Sparsify(epochs=0.25, teacher=None), tiny_context, "retraining")
    moved = dict(tiny_model.model.named_parameters())
    matrices = [name for name, weight in before.items() if weight.dim() > 1]
    assert len(matrices) == 12
    assert not any(torch.equal(moved[name], before[name]) for name in matrices)


def test_a_budget_in_steps_goes_before_epochs(tiny_model: LoadedModel, tiny_context: Context) -> None:
    history = retrain(tiny_model, Sparsify(steps=37, teacher=None), tiny_context, "retraining")
    assert history[-1]["step"] == 36  # of 16 in an epoch
    dense = replace(tiny_model, model=copy.deepcopy(tiny_model.model))
    context = replace(tiny_context, teacher_model=lambda name: dense)
    stage = Sparsify(steps=0, representation_steps=5)
    assert retrain(tiny_model, stage, context, "retraining")[-1]["step"] == 4
    assert retrain(tiny_model, Sparsify(steps=0), tiny_context, "retraining") == []


@pytest.mark.slow
def test_several_teachers_are_averaged(tiny_model: LoadedModel, tiny_context: Context) -> None:
    """One that is sure of the opposite against one that is surer of the labels."""
    labels = np.array(tiny_context.features["labels"])
    right = [np.array([-9.0, 9.0] if label else [9.0, -9.0], dtype=np.float32) for label in labels]
    logits = {"right": right, "wrong": [-row / 2 for row in right]}
    context = replace(tiny_context, teacher_logits=logits.__getitem__)
    for names, share in ((("right", "wrong"), 1.0), (("wrong", "wrong", "right"), 0.5)):
        student = replace(tiny_model, model=copy.deepcopy(tiny_model.model))
        retrain(student, Sparsify(epochs=3, teacher=names, label_weight=0.0), context, "retraining")
        found = np.stack(run(inference(student.model, context.task), context.features, 64, context.collator))
        if share == 1.0:
            assert (found.argmax(1) == labels).mean() > 0.95
        else:
            assert np.abs(found).max() < 1.0, "they cancel each other"


@pytest.mark.parametrize("augment", [0.0, 1e-9])
def test_the_loss_beside_several_teachers_by_hand(augment: float, tiny_model: LoadedModel, tiny_context: Context) -> None:
    """Models of two layers whose heads say the same for every text, stored or asked within the training: teachers of
    (0, 0) and (0, ln 9), a student of (1/2, 1/2)."""
    loaded = {value: saying(tiny_model, value) for value in (0.0, log(9.0))}
    logits = {
        value: run(inference(one.model, tiny_context.task), tiny_context.features, 64, tiny_context.collator)
        for value, one in loaded.items()
    }
    names = {"even": 0.0, "sure": log(9.0)}
    context = replace(tiny_context, teacher_logits=lambda name: logits[names[name]])
    stage = Sparsify(epochs=1, teacher=[*names], temperature=1.0, augment=augment)
    teachers = [loaded[value] for value in names.values()] if augment else []
    batch = context.batches(16).collate([3, 0, 7], torch.device("cpu"))
    value = answers_loss(teachers, stage, context)(loaded[0.0].model, batch)
    assert value.item() == pytest.approx(1 / 4 * log(1 / 2) + 3 / 4 * log(3 / 2), abs=1e-6)


def saying(loaded: LoadedModel, value: float) -> LoadedModel:
    """A copy whose logits are 0 and a value, whatever it reads."""
    model = copy.deepcopy(loaded.model).eval()
    torch.nn.init.zeros_(model.classifier.weight)
    model.classifier.bias.data = torch.tensor([0.0, value])
    return replace(loaded, model=model)


def test_representations_follow_the_first_teacher_alone(tiny_model: LoadedModel, tiny_context: Context) -> None:
    """The second is asked for its logits and for nothing else."""
    asked: list[str] = []

    def model(name: str) -> LoadedModel:
        asked.append(name)
        return replace(tiny_model, model=copy.deepcopy(tiny_model.model))

    answers = [np.zeros(2, np.float32)] * len(tiny_context.features)
    context = replace(tiny_context, teacher_model=model, teacher_logits=lambda name: answers)
    stage = Sparsify(steps=1, representation_steps=1, teacher=["first", "second"])
    retrain(tiny_model, stage, context, "retraining")
    assert asked == ["first"]


@pytest.mark.slow
def test_texts_without_labels_are_learnt_from(
    tiny_model: LoadedModel, tiny_context: Context, tiny_data: Path, tmp_path: Path
) -> None:
    """A teacher that is right on them alone, and says nothing of the training examples."""
    rows = [line.split("\t") for line in (tiny_data / "train.tsv").read_text().splitlines()[1:]]
    (tmp_path / "more.txt").write_text("\n".join(f"{text} film" for text, _ in rows))
    task = registry.load("classification", tiny_data, unlabelled=str(tmp_path / "more.txt"))
    features = unlabelled.encode(task, tiny_model.tokenizer)
    right = [np.array([5.0, -5.0] if label == "bad" else [-5.0, 5.0], dtype=np.float32) for _, label in rows]
    answers = [np.zeros(2, np.float32)] * len(tiny_context.features) + right
    context = replace(tiny_context, task=task, unlabelled=features, teacher_logits=lambda name: answers)
    history = retrain(tiny_model, Sparsify(epochs=4, label_weight=0.0), context, "retraining")
    assert history[-1]["step"] == 4 * (256 + len(rows)) // 16 - 1
    found = run(inference(tiny_model.model, task), features, 64, context.collator)
    labels = np.array([label == "good" for _, label in rows])
    assert (np.stack(found).argmax(1) == labels).mean() > 0.9
    with pytest.raises(InputError, match=r"sparsify: label_weight is 0\.5, and --unlabelled brings texts without labels"):
        retrain(tiny_model, Sparsify(label_weight=0.5), context, "retraining")
