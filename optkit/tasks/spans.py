"""Answers as spans of tokens: targets for training, and the best span of the logits."""

import numpy as np

NOWHERE = -1
"""Offset of a token that is not part of the passage."""


def target(starts: np.ndarray, ends: np.ndarray, answer: tuple[int, int], missing: int) -> tuple[int, int]:
    """First and last token of an answer.

    Args:
        starts: [sequence], where each token starts in the passage, in characters; `NOWHERE` outside of it.
        ends: [sequence], where it ends, exclusive.
        answer: the answer's first character and the one after its last.
        missing: the position that stands for "not in this window", that of [CLS].
    """
    passage = np.flatnonzero(starts != NOWHERE)
    first, last = answer
    if not len(passage) or starts[passage[0]] > first or ends[passage[-1]] < last:
        return missing, missing
    start = np.searchsorted(starts[passage], first, side="right") - 1
    end = np.searchsorted(ends[passage], last, side="left")
    return int(passage[start]), int(passage[end])


def best(logits: np.ndarray, passage: np.ndarray, longest: int) -> tuple[float, int, int]:
    """The span of the passage with the highest sum of its start and end logit.

    Looks at every pair rather than at the n best starts and ends, so that a valid span is always found.

    Args:
        logits: [sequence, 2], start and end.
        passage: bool [sequence], which tokens an answer may consist of.
        longest: tokens an answer may have.

    Returns:
        The sum, and the first and last token; the sum is -inf where there is no passage.
    """
    start, end = np.where(passage[:, None], logits.astype(np.float32), -np.inf).T
    reachable = np.concatenate([end, np.full(longest - 1, -np.inf, dtype=np.float32)])
    sums = start[:, None] + np.lib.stride_tricks.sliding_window_view(reachable, longest)  # [sequence, longest]
    first, extra = divmod(int(sums.argmax()), longest)
    return float(sums[first, extra]), first, first + extra
