"""How alike two models relate a sequence's tokens to each other: the loss of MiniLMv2 (Wang et al. 2021, arXiv
2012.15828)."""

from typing import Any

import torch
from torch.nn import functional

_NEVER = -1e4  # a score whose share is 0
_SMALLEST = -80.0  # a log whose share is 0 beside 1, and still a normal float32


def relation_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor, heads: int) -> torch.Tensor:
    """KL(teacher || student) between the attention of a kind of vector to itself, averaged over heads and real tokens:
    softmax(A Aᵀ / √d) for queries, keys or values A.

    Args:
        student, teacher: [batch, sequence, width]; the widths may differ. Only the student gets a gradient.
        mask: [batch, sequence], 1 for tokens and 0 for padding.
        heads: into how many relation heads either is cut; divides both widths.
    """
    return _RelationLoss.apply(student, teacher, mask, heads)


class _RelationLoss(torch.autograd.Function):
    """Loss and gradient in one pass over pieces of the batch, so that no [batch, heads, sequence, sequence] is kept: on a
    CPU one example at a time, whose relations fit into the cache."""

    @staticmethod
    def forward(ctx: Any, student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor, heads: int) -> torch.Tensor:
        size = 1 if student.device.type == "cpu" else len(student)
        pieces = zip(student.split(size), teacher.split(size), mask.split(size), strict=True)
        with torch.autocast(student.device.type, enabled=False):
            losses, slopes = zip(*(_divergence(*piece, heads) for piece in pieces), strict=True)
            share = 1 / (mask.sum() * heads)
            ctx.save_for_backward((torch.cat(slopes) * share).to(student.dtype))
            return torch.stack(losses).sum() * share

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return slope * gradients[0], None, None, None


def _divergence(
    student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor, heads: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum over heads and tokens, and its gradient [batch, sequence, student's width]."""
    ours, theirs = _cut(student, heads), _cut(teacher, heads)
    predicted, true = _relations(ours, mask), _relations(theirs, mask)
    rows = mask[:, None, :, None].float()  # of padding's own relations nothing counts
    share = _exp(true).mul_(rows)
    loss = torch.dot(share.flatten(), (true - predicted).flatten())
    slope = _exp(predicted).mul_(rows).sub_(share)  # of the scores: softmax less target
    vectors = slope @ ours + slope.transpose(2, 3) @ ours
    return loss, vectors.transpose(1, 2).flatten(2) * _scale(ours)


def _cut(vectors: torch.Tensor, heads: int) -> torch.Tensor:
    """float32 [batch, heads, sequence, width / heads], scaled so that products of two are A Aᵀ / √d."""
    cut = vectors.float().unflatten(2, (heads, -1)).transpose(1, 2)
    return cut * _scale(cut)


def _scale(cut: torch.Tensor) -> float:
    return cut.shape[-1] ** -0.25


def _relations(cut: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Log of each token's relation to all others, [batch, heads, sequence, sequence]."""
    unseen = (1 - mask[:, None, None].float()) * _NEVER
    return functional.log_softmax((cut @ cut.transpose(2, 3)).add_(unseen), dim=-1)


def _exp(logs: torch.Tensor) -> torch.Tensor:
    """Exponential in place, without subnormal numbers, which a CPU multiplies ten times as slowly as others."""
    return logs.clamp(min=_SMALLEST).exp_()
