"""Distillation of the tiny model into a smaller one: its phases, whom they ask, and that the student learns."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

from optkit import Distill, Sparsify
from optkit.compression.context import Context
from optkit.compression.student import student
from optkit.core.errors import InputError
from optkit.models.loading import LoadedModel, inference
from optkit.tasks.collate import run
from optkit.training.loop import train
from optkit.training.losses import task_loss

pytestmark = pytest.mark.slow


class Teacher:
    """A fine-tuned model that notes how it is asked."""

    def __init__(self, loaded: LoadedModel, context: Context) -> None:
        self.loaded, self.context, self.asked = loaded, context, []  # type: ignore[var-annotated]

    def logits(self, name: str) -> Sequence[np.ndarray]:
        self.asked.append(("logits", name))
        return run(inference(self.loaded.model, self.context.task), self.context.features, 64, self.context.collator)

    def model(self, name: str) -> LoadedModel:
        self.asked.append(("model", name))
        return self.loaded


@pytest.fixture
def teacher(tiny_model: LoadedModel, tiny_context: Context) -> Teacher:
    batches = tiny_context.batches(16)
    settings = tiny_context.training.model_copy(update={"epochs": 4})
    train(tiny_model.model, batches, task_loss(tiny_context.task), settings, 0, tiny_context.logs)
    return Teacher(tiny_model, tiny_context)


@pytest.fixture
def context(tiny_context: Context, teacher: Teacher) -> Context:
    return replace(tiny_context, teacher_logits=teacher.logits, teacher_model=teacher.model)


@pytest.fixture
def loaded(teacher: Teacher) -> LoadedModel:
    """What the student is cut from: the teacher's twin."""
    return replace(teacher.loaded, model=copy.deepcopy(teacher.loaded.model))


def distance(one: LoadedModel, other: LoadedModel, context: Context) -> float:
    ours, theirs = (
        np.stack(run(inference(m.model, context.task), context.features, 64, context.collator)) for m in (one, other)
    )
    return float(np.square(ours - theirs).mean())


def test_a_student_learns_what_its_teacher_answers(loaded: LoadedModel, teacher: Teacher, context: Context) -> None:
    loaded.amax, loaded.masks = {"of other layers": torch.ones(1)}, {"of other layers": torch.ones(1)}
    theirs = {name: tensor.clone() for name, tensor in teacher.loaded.model.state_dict().items()}
    untaught = distance(replace(loaded, model=student(loaded.model, 1, None)), teacher.loaded, context)
    history = Distill(layers=1, representation_epochs=1, epochs=2, label_weight=0.0).apply(loaded, context)
    assert loaded.model.config.num_hidden_layers == 1 and len(loaded.model.bert.encoder.layer) == 1
    assert distance(loaded, teacher.loaded, context) < 0.2 * untaught
    assert loaded.amax == loaded.masks == {}
    assert teacher.asked == [("model", "baseline_fp32"), ("logits", "baseline_fp32")]
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in teacher.loaded.model.state_dict().items())
    steps = [entry["step"] for entry in history]
    assert steps == [9, 15, 9, 19, 29, 31], "one epoch of representations, two of answers"
    assert not any(module._forward_hooks for module in loaded.model.modules())
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())


def test_without_the_first_phase_the_teachers_logits_are_enough(
    loaded: LoadedModel, teacher: Teacher, context: Context
) -> None:
    history = Distill(layers=1, epochs=1, representation_epochs=0).apply(loaded, context)
    assert teacher.asked == [("logits", "baseline_fp32")]
    assert [entry["step"] for entry in history] == [9, 15]


def test_augmented_batches_are_answered_by_the_teacher_itself(
    loaded: LoadedModel, teacher: Teacher, context: Context
) -> None:
    seen: list[torch.Tensor] = []
    handle = teacher.loaded.model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
    )
    Distill(layers=1, epochs=2, representation_epochs=0, augment=0.3).apply(loaded, context)
    handle.remove()
    assert teacher.asked == [("model", "baseline_fp32")]
    assert len(seen) == 2 * 16
    sentences = {tuple(token for token in row if token) for row in context.features["input_ids"]}
    asked = [tuple(token for token in row if token) for batch in seen for row in batch.tolist()]
    assert sum(sentence not in sentences for sentence in asked) > 0.8 * len(asked)


def test_a_student_may_be_left_for_a_later_stage_to_train(loaded: LoadedModel, teacher: Teacher, context: Context) -> None:
    """It comes out 2:4 from its first step on, and near its teacher."""
    untaught = distance(replace(loaded, model=student(loaded.model, 1, None)), teacher.loaded, context)
    made = Distill(layers=1, epochs=0, representation_epochs=0)
    assert made.teachers == () and made.apply(loaded, context) == [] and teacher.asked == []
    assert distance(loaded, teacher.loaded, context) == pytest.approx(untaught)
    sparse = Sparsify(criterion="sparsegpt", representation_epochs=1, epochs=2)
    sparse.apply(loaded, context)
    sparse.check(loaded.model, "after training")
    assert distance(loaded, teacher.loaded, context) < 0.3 * untaught


def test_learning_rates_of_the_phases(loaded: LoadedModel, context: Context) -> None:
    rates = {"learning_rate": 1e-4, "representation_learning_rate": 5e-4, "warmup_ratio": 0.0}
    stage = Distill(layers=1, epochs=1, representation_epochs=1, **rates)
    first, second = entries(stage.apply(loaded, context))
    assert first == pytest.approx([5e-4 * 7 / 16, 5e-4 * 1 / 16])  # at the steps 9 and 15 of 16
    assert second == pytest.approx([1e-4 * 7 / 16, 1e-4 * 1 / 16])


def entries(history: list[dict[str, float]]) -> list[list[float]]:
    """Learning rates of both phases."""
    rates = [entry["learning_rate"] for entry in history]
    return [rates[:2], rates[2:]]


def test_dropout_is_the_stages_while_it_trains(loaded: LoadedModel, context: Context) -> None:
    loaded.model.bert.embeddings.dropout.p = 0.25
    loaded.model.config.hidden_dropout_prob = 0.25
    seen: set[float] = set()

    def note(module: torch.nn.Module, *_: object) -> None:
        if module.training:
            seen.add(module.p)  # type: ignore[arg-type]

    handle = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: note(module) if isinstance(module, torch.nn.Dropout) else None
    )
    try:
        Distill(layers=1, epochs=0.25, representation_epochs=0, dropout=0.5).apply(loaded, context)
    finally:
        handle.remove()
    assert seen == {0.5}
    assert loaded.model.bert.embeddings.dropout.p == 0.25


def test_a_narrower_student_is_trained(loaded: LoadedModel, teacher: Teacher, context: Context) -> None:
    untaught = distance(replace(loaded, model=student(loaded.model, 2, 16)), teacher.loaded, context)
    Distill(hidden_size=16, epochs=3, label_weight=0.0).apply(loaded, context)
    assert loaded.model.config.hidden_size == 16
    assert distance(loaded, teacher.loaded, context) < 0.5 * untaught


def test_a_teacher_with_other_words_is_refused(loaded: LoadedModel, teacher: Teacher, context: Context) -> None:
    words = [*sorted(loaded.tokenizer.get_vocab()), "more"]
    teacher.loaded = replace(
        teacher.loaded, tokenizer=transformers.BertTokenizerFast(vocab={word: index for index, word in enumerate(words)})
    )
    message = (
        r"teacher 'other' has a vocabulary of 20 tokens, the student one of 19, and \d+ tokens differ \('.*; expected the"
    )
    with pytest.raises(InputError, match=message):
        Distill(layers=1, teacher="other").apply(loaded, context)


def test_a_student_deeper_than_its_start_is_refused(loaded: LoadedModel, context: Context) -> None:
    with pytest.raises(InputError, match="a student of 3 layers is deeper than its teacher of 2; give at most 2"):
        Distill(layers=3).apply(loaded, context)
