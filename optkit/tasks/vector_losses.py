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

    Another query's text counts as no negative where it is the same text, or where the other query is the same. A query
    without its own text, at the end of a batch, is left out.

    Args:
        vectors: [texts, dimensions].
        examples: number of the example that a text is of, [texts].
        roles: `FIRST` for queries, `SECOND` for their own texts, another for negatives, [texts].
        texts: a number for each different text, [texts].
    """
    first, second = _pairs(examples, roles)
    if not len(first):
        return 0.0 * vectors.sum()
    vectors = functional.normalize(vectors.float(), dim=-1)
    candidates = torch.cat([second, (roles > SECOND).nonzero().squeeze(1)])
    scores = SCALE * vectors[first] @ vectors[candidates].T
    same = (texts[candidates] == texts[second][:, None]) | (texts[candidates] == texts[first][:, None])
    same[:, : len(second)] |= texts[first] == texts[first][:, None]
    own = torch.arange(len(first), device=vectors.device)
    same[own, own] = False
    return functional.cross_entropy(scores.masked_fill(same, float("-inf")), own)


def score_loss(vectors: torch.Tensor, examples: torch.Tensor, roles: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Squared distance of a pair's cosine from its score (Reimers and Gurevych 2019, arXiv 1908.10084).

    Args:
        vectors: [texts, dimensions].
        examples: number of the pair that a text is of, [texts]; a text without the other one is left out.
        roles: `FIRST` or `SECOND`, [texts].
        scores: of the pair, [texts].
    """
    first, second = _pairs(examples, roles)
    if not len(first):
        return 0.0 * vectors.sum()
    cosines = functional.cosine_similarity(vectors[first].float(), vectors[second].float())
    return functional.mse_loss(cosines, scores[first].float())


def _pairs(examples: torch.Tensor, roles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the places of both texts of each example that has both."""
    both = (roles[:, None] == FIRST) & (roles == SECOND) & (examples[:, None] == examples)
    first, second = both.nonzero(as_tuple=True)
    return first, second


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
