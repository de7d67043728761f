"""Losses of vectors of texts: of pairs that belong together, of pairs with a score, and of a teacher's vectors."""

import torch
from torch.nn import functional

from optkit.tasks.embedding_rows import FIRST, SECOND

SCALE = 20.0
"""Factor of cosines before a softmax over them, as sentence-transformers has it."""
_SHARPNESS = 20.0
"""Factor of the cosines whose distributions a student follows."""


def ranking_loss(vectors: torch.Tensor, examples: torch.Tensor, roles: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """Multiple-negatives ranking loss: each query is to find its own text among all others of the batch (Henderson et al.
    2017, arXiv 1705.00652).

    Another query's text counts as no negative where it is the same text, or where the other query is the same.

    Args:
        vectors: [texts, dimensions].
        examples: number of the example that a text is of, [texts].
        roles: `FIRST`, `SECOND` or `NEGATIVE`, [texts].
        texts: a number for each different text, [texts].
    """
    vectors = functional.normalize(vectors.float(), dim=-1)
    queries, candidates = roles == FIRST, roles != FIRST
    scores = SCALE * vectors[queries] @ vectors[candidates].T
    own = (examples[queries][:, None] == examples[candidates]) & (roles[candidates] == SECOND)
    target = own.int().argmax(1)
    query_of = dict(zip(examples[queries].tolist(), texts[queries].tolist(), strict=True))
    asked = torch.tensor([query_of[example] for example in examples[candidates].tolist()], device=vectors.device)
    positive = roles[candidates] == SECOND
    same = texts[candidates] == texts[candidates][target][:, None]
    same |= (asked == texts[queries][:, None]) & positive
    same |= texts[candidates] == texts[queries][:, None]
    return functional.cross_entropy(scores.masked_fill(same & ~own, float("-inf")), target)


def score_loss(vectors: torch.Tensor, examples: torch.Tensor, roles: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Squared distance of a pair's cosine from its score (Reimers and Gurevych 2019, arXiv 1908.10084).

    Args:
        vectors: [texts, dimensions].
        examples: number of the pair that a text is of, [texts].
        roles: `FIRST` or `SECOND`, [texts].
        scores: of the pair, [texts].
    """
    order = torch.argsort(examples, stable=True)
    vectors, roles, scores = vectors[order].float(), roles[order], scores[order]
    first, second = vectors[roles == FIRST], vectors[roles == SECOND]
    return functional.mse_loss(functional.cosine_similarity(first, second), scores[roles == FIRST].float())


def teacher_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Follow a teacher's vectors: 1 minus the cosine with each (as the squared distance of normalised vectors in Reimers and
    Gurevych 2020, arXiv 2004.09813), plus the divergence of the distributions of similarities within the batch (Fang et al.
    2021, arXiv 2101.04731). Of vectors of another size the second alone.

    Args:
        student: [texts, dimensions].
        teacher: [texts, its dimensions].
    """
    ours, theirs = (functional.normalize(vectors.float(), dim=-1) for vectors in (student, teacher))
    loss = 0.0 * ours.sum()
    if ours.shape == theirs.shape:
        loss = loss + (1 - (ours * theirs).sum(-1)).mean()
    if len(ours) > 2:  # two texts have one similarity, which makes no distribution
        found, wanted = (functional.log_softmax(_others(vectors), dim=-1) for vectors in (ours, theirs))
        loss = loss + functional.kl_div(found, wanted, log_target=True, reduction="batchmean")
    return loss


def _others(vectors: torch.Tensor) -> torch.Tensor:
    """Return the sharpened similarities of each text with the others, [texts, texts - 1]."""
    count = len(vectors)
    others = ~torch.eye(count, dtype=torch.bool, device=vectors.device)
    return (_SHARPNESS * vectors @ vectors.T)[others].view(count, count - 1)
