"""Answers as spans of a passage: the words that tokens stand for, and the best spans of the logits."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from optkit.tasks.served import NOWHERE

Window = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Logits [sequence, 2], padded or not, and where each token starts and ends in the passage [sequence], in characters."""


def positions(encoded: Any, text: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Return each token's start and end in the passage, int32 [sequence] per feature, in characters.

    Args:
        encoded: result of a tokenizer.
        text: which of a feature's texts the passage is.
    """
    for encoding in encoded.encodings:
        passage = np.array([sequence == text for sequence in encoding.sequence_ids])[:, None]
        starts, ends = np.where(passage, np.array(encoding.offsets, dtype=np.int32), NOWHERE).T
        yield starts, ends


class Words:
    """Takes the blanks off what tokens stand for in one passage, and adds the accents that some leave out.

    Byte-level and SentencePiece tokenizers count the blank before a word to its first token, and may have tokens that are
    nothing but blanks. Those that strip accents let a token end before a combining mark, which belongs to its letter.
    """

    def __init__(self, passage: str) -> None:
        blank = np.char.isspace(np.array(list(passage), dtype="<U1"))
        places = np.arange(len(passage) + 1, dtype=np.int32)
        ahead, behind = np.where(blank, places[-1], places[:-1]), np.where(blank, 0, places[1:])
        self._from = np.append(np.minimum.accumulate(ahead[::-1])[::-1], places[-1])
        self._to = np.append(np.int32(0), np.maximum.accumulate(behind))[_after_marks(passage)]

    def of(self, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return starts and ends without blanks; `NOWHERE` for tokens of blanks alone and for empty ones.

        Args:
            starts: [sequence], where each token starts in the passage, in characters; `NOWHERE` outside of it.
            ends: [sequence], where it ends, exclusive.
        """
        first, last = self._from[starts], self._to[ends]
        full = (starts != NOWHERE) & (first < last)
        return np.where(full, first, NOWHERE), np.where(full, last, NOWHERE)


def _after_marks(passage: str) -> np.ndarray:
    """Where each place of a passage [characters + 1] moves to, if it stands before combining marks: behind them."""
    marks = np.array([not one.isascii() and unicodedata.combining(one) > 0 for one in passage], dtype=bool)
    places = np.arange(len(passage) + 1, dtype=np.int32)
    ahead = np.append(np.where(marks, places[-1], places[:-1]), places[-1])
    moved: np.ndarray = np.minimum.accumulate(ahead[::-1])[::-1]
    moved[0] = 0
    return moved


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


def of_passage(windows: Iterable[Window], passage: str, longest: int, count: int) -> list[tuple[float, int, int]]:
    """The best spans of a passage over all of its windows, each once, without blanks around them.

    Args:
        windows: of the passage.
        passage: its text.
        longest: tokens an answer may have.
        count: how many to find.

    Returns:
        For each its sum, its first character in the passage and the one after its last; fewer where there are no more.
    """
    found: dict[tuple[int, int], float] = {}
    words = Words(passage)
    for logits, *offsets in windows:
        starts, ends = words.of(*offsets)
        distinct = _distinct(logits[: len(starts)], starts, ends)
        for value, first, last in best(distinct, starts != NOWHERE, longest, count):
            span = int(starts[first]), int(ends[last])
            found[span] = max(value, found.get(span, -np.inf))
    ordered = sorted(found.items(), key=lambda entry: -entry[1])
    return [(value, *span) for span, value in ordered[:count]]


def none_score(windows: Iterable[Window]) -> float:
    """Return the score of no answer in a passage: the sum of the logits of [CLS], the lowest of all windows (Devlin et al.
    2018, arXiv 1810.04805, 4.3)."""
    return min(float(logits[0].astype(np.float32).sum()) for logits, *_ in windows)


def with_none(found: Sequence[tuple[float, int, int]], score: float) -> list[tuple[float, int, int]]:
    """Return spans with the empty one for no answer among them, which comes first if its score is the highest."""
    return sorted([*found, (score, 0, 0)], key=lambda entry: -entry[0])


def _distinct(logits: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return logits in which no two tokens start, and no two end, at the same character.

    The tokens that a character was split into stand for all of it. The first of them gets their highest start logit, the
    last their highest end logit, the others -inf, so that each pair of tokens is another span.
    """
    found = np.full(logits.shape, -np.inf, dtype=np.float32)
    first = np.flatnonzero(np.append(True, starts[1:] != starts[:-1]))
    found[first, 0] = np.maximum.reduceat(logits[:, 0], first)
    first = np.flatnonzero(np.append(True, ends[1:] != ends[:-1]))
    found[np.append(first[1:], len(ends)) - 1, 1] = np.maximum.reduceat(logits[:, 1], first)
    return found
