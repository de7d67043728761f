"""Losses against values computed by hand."""

from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch
from transformers.modeling_outputs import QuestionAnsweringModelOutput, SequenceClassifierOutput

from optkit.core.errors import InputError
from optkit.tasks.classification import Classification
from optkit.tasks.embedding import Embedding
from optkit.tasks.question_answering import QuestionAnswering
from optkit.tasks.reranking import Reranking
from optkit.training.losses import (
    Batch,
    Tensors,
    averaged,
    distillation,
    hidden_state_loss,
    live,
    stored,
    task_loss,
    with_teacher,
)

LN3 = log(3.0)
TOKENS = {"input_ids": torch.zeros(1, 3, dtype=torch.long)}


def batch_of(targets: Tensors, indices: list[int], inputs: Tensors = TOKENS) -> Batch:
    return Batch(inputs, targets, indices)


def saying(output: Any) -> Any:
    """A model with one answer to everything."""
    return lambda **_: output


def classified(*rows: list[float]) -> SequenceClassifierOutput:
    return SequenceClassifierOutput(logits=torch.tensor(rows))


def answered(start: list[list[float]], end: list[list[float]]) -> QuestionAnsweringModelOutput:
    return QuestionAnsweringModelOutput(start_logits=torch.tensor(start), end_logits=torch.tensor(end))


def test_logits_of_classification_and_of_spans() -> None:
    assert Classification.logits(classified([1.0, 2.0])).tolist() == [[1, 2]]
    assert QuestionAnswering.logits(answered([[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]])).tolist() == [[[1, 4], [2, 5], [3, 6]]]


def test_cross_entropy_of_labels() -> None:
    output = classified([0.0, LN3], [0.0, LN3])  # softmax: 1/4, 3/4
    value = Classification.loss(output, {"labels": torch.tensor([1, 0])})
    assert value.item() == pytest.approx((-log(3 / 4) - log(1 / 4)) / 2)


def test_the_loss_of_spans_is_the_mean_of_start_and_end() -> None:
    output = answered([[0.0, LN3]], [[0.0, 0.0]])
    targets = {"start_positions": torch.tensor([1]), "end_positions": torch.tensor([0])}
    assert QuestionAnswering.loss(output, targets).item() == pytest.approx((-log(3 / 4) - log(1 / 2)) / 2)


def test_the_loss_is_computed_in_fp32() -> None:
    output = SequenceClassifierOutput(logits=torch.tensor([[0.0, LN3]], dtype=torch.bfloat16))
    assert Classification.loss(output, {"labels": torch.tensor([1])}).dtype == torch.float32


def test_distillation_softens_by_the_temperature_and_restores_the_gradients_size() -> None:
    teacher, student = torch.tensor([[0.0, 2 * LN3]]), torch.tensor([[0.0, 0.0]])
    # T = 2: the teacher's distribution is (1/4, 3/4), the student's (1/2, 1/2)
    divergence = 1 / 4 * log((1 / 4) / (1 / 2)) + 3 / 4 * log((3 / 4) / (1 / 2))
    assert distillation(student, teacher, 2.0).item() == pytest.approx(4 * divergence)


def test_distillation_goes_from_teacher_to_student() -> None:
    teacher, student = torch.tensor([[0.0, LN3]]), torch.tensor([[LN3, 0.0]])
    assert distillation(student, teacher, 1.0).item() == pytest.approx(1 / 4 * log(1 / 3) + 3 / 4 * log(3))
    uneven = torch.tensor([[0.0, log(9.0)]])  # (1/10, 9/10): KL is not symmetric
    assert distillation(uneven, teacher, 1.0).item() == pytest.approx(1 / 4 * log(2.5) + 3 / 4 * log(5 / 6))


def test_distillation_is_zero_at_the_teacher_and_a_mean_over_the_batch() -> None:
    logits = torch.tensor([[0.0, LN3], [1.0, 5.0]])
    assert distillation(logits, logits + 7, 3.0).item() == pytest.approx(0.0, abs=1e-6)
    one = distillation(torch.zeros(1, 2), logits[:1], 1.0)
    both = distillation(torch.stack([torch.zeros(2), logits[1]]), logits, 1.0)
    assert both.item() == pytest.approx(one.item() / 2)


def test_spans_are_two_distributions_over_the_sequence() -> None:
    teacher = torch.tensor([[[0.0, 0.0], [LN3, 0.0]]])  # start: (1/4, 3/4), end: (1/2, 1/2)
    student = torch.zeros(1, 2, 2)
    divergence = 1 / 4 * log(1 / 2) + 3 / 4 * log(3 / 2)
    rows = [QuestionAnswering.distributions(logits) for logits in (student, teacher)]
    assert distillation(*rows, 1.0).item() == pytest.approx(divergence / 2)


@pytest.mark.parametrize(("label_weight", "share"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)])
def test_label_weight_is_the_labels_share(label_weight: float, share: float) -> None:
    teacher = [np.array([0.0, LN3], dtype=np.float32)]
    loss = with_teacher(Classification, stored(teacher, Classification), temperature=1.0, label_weight=label_weight)
    value = loss(saying(classified([0.0, 0.0])), batch_of({"labels": torch.tensor([0])}, [0]))
    divergence = 1 / 4 * log(1 / 2) + 3 / 4 * log(3 / 2)
    assert value.item() == pytest.approx((1 - share) * divergence + share * log(2))


def test_a_task_may_have_its_own_distance_from_a_teacher() -> None:
    teacher = [np.array([value], dtype=np.float32) for value in (0.0, 5.0, 2.0)]
    targets = {"labels": torch.tensor([1.0, 0.0]), "queries": torch.tensor([4, 4])}
    loss = with_teacher(Reranking, stored(teacher, Reranking), temperature=1.0, label_weight=0.25)
    value = loss(saying(classified([3.0], [3.0])), batch_of(targets, [2, 1]))  # margins of 0, where the teacher has -3
    labels = (log(1 + exp(-3)) + log(1 + exp(3))) / 2
    assert value.item() == pytest.approx(0.75 * 9 + 0.25 * labels)


def test_the_teacher_is_looked_up_by_feature() -> None:
    teacher = [np.array([0.0, value], dtype=np.float32) for value in (9.0, LN3, 5.0)]
    loss = with_teacher(Classification, stored(teacher, Classification), temperature=1.0, label_weight=0.0)
    asked = batch_of({"labels": torch.tensor([0, 0])}, [2, 1])
    assert loss(saying(classified([0.0, 5.0], [0.0, LN3])), asked).item() == pytest.approx(0, abs=1e-6)


def test_a_teachers_missing_positions_have_no_probability() -> None:
    teacher = [np.array([[0.0, 0.0], [LN3, 0.0]], dtype=np.float32)]  # two tokens; the batch is padded to three
    loss = with_teacher(QuestionAnswering, stored(teacher, QuestionAnswering), temperature=1.0, label_weight=0.0)
    targets = {"start_positions": torch.tensor([0]), "end_positions": torch.tensor([0])}
    # The student spreads over three positions: KL over the two that the teacher knows.
    start = 1 / 4 * log((1 / 4) / (1 / 3)) + 3 / 4 * log((3 / 4) / (1 / 3))
    end = log((1 / 2) / (1 / 3))
    student = answered([[0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]])
    assert loss(saying(student), batch_of(targets, [0])).item() == pytest.approx((start + end) / 2)
    exact = answered([[0.0, LN3, -1e4]], [[0.0, 0.0, -1e4]])
    assert loss(saying(exact), batch_of(targets, [0])).item() == pytest.approx(0, abs=1e-6)


def test_no_gradient_is_lost_at_extreme_logits() -> None:
    student = torch.tensor([[300.0, -300.0]], requires_grad=True)
    distillation(student, torch.tensor([[-300.0, 300.0]]), 1.0).backward()
    assert student.grad is not None and student.grad.tolist() == [[1.0, -1.0]]


def test_a_stored_answer_longer_than_its_batch_is_cut() -> None:
    rows = [np.arange(10, dtype=np.float32).reshape(5, 2), np.ones((2, 2), dtype=np.float32)]
    found = stored(rows, QuestionAnswering)(batch_of({}, [1, 0]))  # of three tokens
    assert found.tolist() == [[[1, 1], [1, 1], [-1e4, -1e4]], [[0, 1], [2, 3], [4, 5]]]


def test_the_task_loss_asks_the_model_for_its_batch() -> None:
    asked: list[dict] = []

    def model(**inputs: torch.Tensor) -> SequenceClassifierOutput:
        asked.append(inputs)
        return classified([0.0, LN3])

    assert task_loss(Classification)(model, batch_of({"labels": torch.tensor([1])}, [0])).item() == pytest.approx(
        -log(3 / 4)
    )
    assert [list(inputs) for inputs in asked] == [["input_ids"]]


class Doubling(torch.nn.Module):
    """Answers [batch, 2] with twice its weight, and with noise while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.0, LN3 / 2]))

    def forward(self, input_ids: torch.Tensor) -> SequenceClassifierOutput:
        noise = 1e3 * torch.rand(()) if self.training else 0.0
        return SequenceClassifierOutput(logits=(2 * self.weight + noise).expand(len(input_ids), 2) * 1.0)


def test_a_live_teacher_looks_at_the_batch_without_learning() -> None:
    teacher = Doubling().train()
    found = live(teacher, Classification)(batch_of({}, [7]))
    assert found.tolist() == [pytest.approx([0.0, LN3])]
    assert not found.requires_grad and not teacher.training
    loss = with_teacher(Classification, live(teacher, Classification), temperature=1.0, label_weight=0.0)
    value = loss(saying(classified([0.0, 0.0])), batch_of({"labels": torch.tensor([0])}, [7]))
    assert value.item() == pytest.approx(1 / 4 * log(1 / 2) + 3 / 4 * log(3 / 2))


def test_hidden_states_are_compared_on_real_tokens_in_the_teachers_unit() -> None:
    teacher = torch.tensor([[[3.0, 4.0], [0.0, 5.0], [9.0, 9.0]]])  # squared lengths 25 and 25, and a padding
    student = torch.tensor([[[3.0, 3.0], [2.0, 5.0], [-7.0, 8.0]]])  # squared distances 1 and 4
    mask = torch.tensor([[1, 1, 0]])
    assert hidden_state_loss(student, teacher, mask).item() == pytest.approx(5 / 50)
    assert hidden_state_loss(10 * student, 10 * teacher, mask).item() == pytest.approx(5 / 50)
    assert hidden_state_loss(teacher, teacher, mask).item() == 0
    assert hidden_state_loss(torch.zeros_like(teacher), teacher, mask).item() == 1
    assert hidden_state_loss(student.bfloat16(), teacher.bfloat16(), mask).dtype == torch.float32


def test_the_mean_of_teachers() -> None:
    batch = batch_of({}, [1, 0])
    teachers = [stored([np.array([first, 0.0]), np.array([0.0, 4.0])], Classification) for first in (1.0, 3.0)]
    assert averaged(teachers, Classification)(batch).tolist() == [[0.0, 4.0], [2.0, 0.0]]
    assert torch.equal(averaged(teachers[:1], Classification)(batch), teachers[0](batch))


def test_logits_are_averaged_and_not_probabilities() -> None:
    """(1/2, 1/2) and (1/10, 9/10): of the logits' mean (1/4, 3/4), of the probabilities' (3/10, 7/10)."""
    teachers = [stored([np.array([0.0, value])], Classification) for value in (0.0, log(9.0))]
    found = averaged(teachers, Classification)(batch_of({}, [0]))
    assert torch.softmax(found, -1).tolist() == [pytest.approx([1 / 4, 3 / 4])]


def test_answers_of_16_bits_are_averaged_in_32() -> None:
    teachers = [lambda _, value=value: torch.tensor([[value]], dtype=torch.bfloat16) for value in (1.0, 1.0078125)]
    assert averaged(teachers, Classification)(batch_of({}, [0])).tolist() == [[1.00390625]]


def test_of_vectors_directions_are_averaged() -> None:
    """The longer one has no more of a say."""
    teachers = [stored([np.array(vector)], Embedding) for vector in ([30.0, 40.0], [0.8, -0.6])]
    assert averaged(teachers, Embedding)(batch_of({}, [0])).tolist() == [pytest.approx([0.7, 0.1])]


def test_teachers_of_different_shapes_are_refused() -> None:
    teachers = [stored([np.zeros(size)], Classification) for size in (2, 3)]
    with pytest.raises(InputError, match=r"shapes \[2\] and \[3\]: expected one shape"):
        averaged(teachers, Classification)(batch_of({}, [0]))
