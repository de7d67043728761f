"""Relations among tokens: their loss against values computed by hand, and its gradient against autograd's."""

from math import log

import pytest
import torch
from torch.nn import functional

from optkit.compression.relations import relation_loss

LN3 = log(3.0)


def test_relations_by_hand() -> None:
    # one head of width 1: the teacher's scores are a aᵀ = [[0, 0], [0, ln 3]], the student's all 0
    teacher, student = torch.tensor([[[0.0], [LN3**0.5]]]), torch.zeros(1, 2, 1)
    mask = torch.ones(1, 2, dtype=torch.long)
    second = 1 / 4 * log((1 / 4) / (1 / 2)) + 3 / 4 * log((3 / 4) / (1 / 2))
    assert relation_loss(student, teacher, mask, 1).item() == pytest.approx((0 + second) / 2)
    assert relation_loss(teacher, teacher, mask, 1).item() == pytest.approx(0, abs=1e-7)


def test_relations_are_scaled_by_the_root_of_a_heads_width_and_averaged_over_heads() -> None:
    # a head of width 4 whose scores are 2 ln 3 / √4 = ln 3, and one that knows nothing
    vectors = torch.zeros(1, 2, 8)
    vectors[0, 1, 0] = (2 * LN3) ** 0.5
    mask = torch.ones(1, 2, dtype=torch.long)
    second = 1 / 4 * log((1 / 4) / (1 / 2)) + 3 / 4 * log((3 / 4) / (1 / 2))
    assert relation_loss(torch.zeros(1, 2, 8), vectors, mask, 2).item() == pytest.approx((0 + second) / 2 / 2)


def test_relations_of_padding_do_not_count() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, student = (torch.randn(2, 5, 8, generator=generator) for _ in range(2))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    expected = relation_loss(student, teacher, mask, 2).item()
    for vectors in (teacher, student):
        vectors[0, 3:] = 50 * torch.randn(2, 8, generator=generator)
    assert expected > 0 and relation_loss(student, teacher, mask, 2).item() == pytest.approx(expected)
    apart = [
        relation_loss(student[:1, :3], teacher[:1, :3], mask[:1, :3], 2),
        relation_loss(student[1:], teacher[1:], mask[1:], 2),
    ]
    assert expected == pytest.approx((3 * apart[0].item() + 5 * apart[1].item()) / 8)


def test_relations_of_different_widths() -> None:
    generator = torch.Generator().manual_seed(0)
    narrow, wide = torch.randn(1, 3, 4, generator=generator), torch.randn(1, 3, 8, generator=generator)
    assert relation_loss(narrow, wide, torch.ones(1, 3, dtype=torch.long), 2).item() > 0
    doubled = torch.cat([narrow.view(1, 3, 2, 2), narrow.view(1, 3, 2, 2)], -1).flatten(2) / 2**0.25  # the same relations
    assert relation_loss(narrow, doubled, torch.ones(1, 3, dtype=torch.long), 2).item() == pytest.approx(0, abs=1e-6)


def by_autograd(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor, heads: int) -> torch.Tensor:
    """The same loss as the paper writes it, all at once."""
    logs = []
    for vectors in (student, teacher):
        cut = vectors.unflatten(2, (heads, -1)).transpose(1, 2)
        scores = cut @ cut.transpose(2, 3) / cut.shape[-1] ** 0.5
        logs.append(functional.log_softmax(scores.masked_fill(mask[:, None, None] == 0, -1e4), dim=-1))
    rows = (logs[1].exp() * (logs[1] - logs[0])).sum(-1)
    return (rows * mask[:, None]).sum() / (mask.sum() * heads)


def test_the_gradient_is_that_of_autograd() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, student = (torch.randn(3, 6, 8, generator=generator) for _ in range(2))
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]])
    found, expected = student.clone().requires_grad_(), student.clone().requires_grad_()
    loss, other = 3 * relation_loss(found, teacher, mask, 2), 3 * by_autograd(expected, teacher, mask, 2)
    loss.backward()
    other.backward()
    assert loss.item() == pytest.approx(other.item())
    assert expected.grad.abs().max() > 0.01
    assert torch.allclose(found.grad, expected.grad, atol=1e-6)
    assert found.grad[0, 3:].abs().max() < 1e-30


def test_vectors_in_bf16_are_related_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, student = (torch.randn(1, 6, 8, generator=generator).bfloat16() for _ in range(2))
    mask = torch.ones(1, 6, dtype=torch.long)
    student.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = relation_loss(student, teacher, mask, 2)
    loss.backward()
    assert loss.dtype == torch.float32 and student.grad.dtype == torch.bfloat16
    assert loss.item() == pytest.approx(by_autograd(student.float(), teacher.float(), mask, 2).item())
