"""Answers as spans: targets for training, and the best spans of the logits."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from optkit.tasks.served import NOWHERE

Window = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Logits [sequence, 2], padded or not, and where each token starts and ends in the passage [sequence], in characters."""


def positions(encoded: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Return each token's start and end in the passage, int32 [sequence] per feature, in characters."""
    for encoding in encoded.encodings:
        passage = np.array([sequence == 1 for sequence in encoding.sequence_ids])[:, None]
        starts, ends = np.where(passage, np.array(encoding.offsets, dtype=np.int32), NOWHERE).T
        yield starts, ends


def first_answer(answers: Mapping[str, Any]) -> tuple[int, int]:
    """The first answer's first character and the one after its last, without blanks around it."""
    text, start = answers["text"][0], answers["answer_start"][0]
    start += len(text) - len(text.lstrip())
    return start, start + len(text.strip())


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


def best(logits: np.ndarray, passage: np.ndarray, longest: int, count: int = 1) -> list[tuple[float, int, int]]:
    """The spans of a window with the highest sums of their start and end logit, the best one first.

    Looks at every pair rather than at the n best starts and ends, so that no span is missed.

    Args:
        logits: [sequence, 2], start and end.
        passage: bool [sequence], which tokens an answer may consist of.
        longest: tokens an answer may have.
        count: how many to find.

    Returns:
        For each its sum, and its first and last token; fewer where the passage has no more.
    """
    start, end = np.where(passage[:, None], logits.astype(np.float32), -np.inf).T
    reachable = np.concatenate([end, np.full(longest - 1, -np.inf, dtype=np.float32)])
    sums = (start[:, None] + np.lib.stride_tricks.sliding_window_view(reachable, longest)).ravel()  # [sequence · longest]
    count = min(count, len(sums))
    order = np.argpartition(-sums, count - 1)[:count]
    order = order[np.lexsort((order, -sums[order]))]  # of equal sums the first in the passage
    return [(float(sums[at]), int(at // longest), int(at // longest + at % longest)) for at in order if sums[at] != -np.inf]


def of_passage(windows: Iterable[Window], longest: int, count: int) -> list[tuple[float, int, int]]:
    """The best spans of a passage over all of its windows, each once.

    Args:
        windows: of the passage.
        longest: tokens an answer may have.
        count: how many to find.

    Returns:
        For each its sum, its first character in the passage and the one after its last; fewer where there are no more.
    """
    found: dict[tuple[int, int], float] = {}
    for logits, starts, ends in windows:
        for value, first, last in best(logits[: len(starts)], starts != NOWHERE, longest, count):
            span = int(starts[first]), int(ends[last])
            found[span] = max(value, found.get(span, -np.inf))
    ordered = sorted(found.items(), key=lambda entry: -entry[1])
    return [(value, *span) for span, value in ordered[:count]]
