"""Losses of vectors, by hand and against sentence-transformers' own."""

from math import exp, log

import pytest
import torch
from torch.nn import functional

from optkit.tasks.embedding_rows import FIRST, NEGATIVE, SECOND
from optkit.tasks.vector_losses import SCALE, ranking_loss, score_loss, teacher_loss


def numbers(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def test_each_query_is_to_find_its_own_text() -> None:
    vectors = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 1.0]])
    loss = ranking_loss(vectors, numbers(7, 7, 9, 9), numbers(FIRST, SECOND, SECOND, FIRST), numbers(0, 1, 2, 3))
    assert loss.item() == pytest.approx(log(1 + exp(-SCALE)), abs=1e-7)
    crossed = ranking_loss(vectors, numbers(7, 9, 7, 9), numbers(FIRST, SECOND, SECOND, FIRST), numbers(0, 1, 2, 3))
    assert crossed.item() == pytest.approx(SCALE + log(1 + exp(-SCALE)))


def test_it_is_that_of_sentence_transformers() -> None:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    parts = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    theirs = MultipleNegativesRankingLoss(model=None, scale=SCALE).compute_loss_from_embeddings(list(parts), None)
    vectors = parts.transpose(0, 1).reshape(15, 8)
    examples = torch.arange(5).repeat_interleave(3)
    roles = numbers(FIRST, SECOND, NEGATIVE).repeat(5)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(1))
    ours = ranking_loss(vectors[order], examples[order], roles[order], torch.arange(15)[order])
    assert ours.item() == pytest.approx(float(theirs), rel=1e-5)


def test_what_is_right_for_a_query_is_no_negative() -> None:
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    examples, roles = numbers(0, 0, 1, 1), numbers(FIRST, SECOND, FIRST, SECOND)
    same_text = ranking_loss(vectors, examples, roles, numbers(0, 1, 2, 1))
    assert same_text.item() == pytest.approx(0.0, abs=1e-6)
    same_query = ranking_loss(vectors, examples, roles, numbers(0, 1, 0, 3))
    assert same_query.item() == pytest.approx(0.0, abs=1e-6)
    apart = ranking_loss(vectors, examples, roles, numbers(0, 1, 2, 3))
    assert apart.item() == pytest.approx(log(2))


def test_what_a_batch_has_cut_off_is_left_out() -> None:
    vectors = torch.randn(4, 3, requires_grad=True)
    roles = numbers(FIRST, SECOND, FIRST, SECOND)
    whole = score_loss(vectors[:2], numbers(0, 0), roles[:2], torch.tensor([0.5, 0.5]))
    assert score_loss(vectors, numbers(0, 0, 1, 2), roles, torch.tensor([0.5, 0.5, 0.1, 0.9])) == whole
    nothing = ranking_loss(vectors[:1], numbers(0), numbers(FIRST), numbers(0))
    nothing.backward()
    assert nothing.item() == 0.0


def test_a_pairs_cosine_is_to_be_its_score() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [3.0, 3.0]])
    loss = score_loss(
        vectors, numbers(1, 1, 0, 0), numbers(FIRST, SECOND, SECOND, FIRST), torch.tensor([0.5, 0.5, 0.8, 0.8])
    )
    assert loss.item() == pytest.approx((0.5**2 + 0.2**2) / 2)


def test_a_teachers_vectors_are_followed() -> None:
    teacher = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert teacher_loss(3 * teacher, teacher).item() == pytest.approx(0.0, abs=1e-6)
    student = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    ours, theirs = functional.normalize(student, dim=-1), functional.normalize(teacher, dim=-1)
    expected = float((1 - (ours * theirs).sum(-1)).mean())
    for row in range(6):
        others = [place for place in range(6) if place != row]
        wanted, found = ((20 * one[row] @ one[others].T).softmax(0) for one in (theirs, ours))
        expected += float((wanted * (wanted / found).log()).sum()) / 6
    assert teacher_loss(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_vectors_of_another_size_are_followed_by_their_similarities() -> None:
    teacher = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    wider = torch.cat([teacher, torch.zeros(6, 2)], dim=1)
    assert teacher_loss(wider, teacher).item() == pytest.approx(0.0, abs=1e-6)
    student = torch.randn(2, 3, requires_grad=True)
    teacher_loss(student, teacher[:2]).backward()
    assert student.grad is not None
