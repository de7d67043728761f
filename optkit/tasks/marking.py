"""Marks the answers of questions as spans of tokens, the targets of training, and reads each mark back as text."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from optkit.tasks.data.tables import shown
from optkit.tasks.served import NOWHERE
from optkit.tasks.spans import Words
from optkit.tasks.squad_metric import normalized

log = logging.getLogger(__name__)
Offsets = tuple[np.ndarray, np.ndarray]
"""Where each token of a window starts and ends in the passage, in characters; `NOWHERE` outside of it."""
Mark = tuple[int, int]
"""First and last token of an answer in a window."""


class Answer(NamedTuple):
    """A right answer: its text, its first character in the passage and the one after its last, without blanks around it."""

    text: str
    first: int
    last: int

    @classmethod
    def of(cls, answers: Mapping[str, Any]) -> "Answer":
        """Return the first of a question's answers."""
        text, start = answers["text"][0], answers["answer_start"][0]
        start += len(text) - len(text.lstrip())
        return cls(text.strip(), start, start + len(text.strip()))

    def is_read_as(self, text: str) -> bool:
        """Whether a text is this answer by SQuAD's rules, or letter by letter where these leave nothing of it."""
        expected = normalized(self.text)
        return normalized(text) == expected if expected else text == self.text


def outside(sequence_ids: Sequence[int | None], tokens: Sequence[int], cls: int | None) -> int:
    """Return the position that stands for "not in this window", which is none of the passage's.

    It is that of [CLS], of the first special token where the tokenizer has no [CLS], or else of the question's first token.
    """
    special = [at for at, sequence in enumerate(sequence_ids) if sequence is None]
    others = special or [at for at, sequence in enumerate(sequence_ids) if sequence == 0] or [0]
    return next((at for at in special if tokens[at] == cls), others[0])


def mark(windows: Sequence[Offsets], answer: Answer) -> list[Mark | None]:
    """Return the fewest tokens that hold an answer, window by window; None where a window does not hold all of it.

    Args:
        windows: of the passage, together all of it, without blanks (`Words`).
        answer: to mark. Characters at its ends that the tokenizer drops are no part of it.
    """
    touching = [(starts != NOWHERE) & (starts < answer.last) & (ends > answer.first) for starts, ends in windows]
    held = [(starts[hit].min(), ends[hit].max()) for (starts, ends), hit in zip(windows, touching, strict=True) if hit.any()]
    if not held:
        return [None] * len(windows)
    first, last = max(answer.first, min(start for start, _ in held)), min(answer.last, max(end for _, end in held))
    marks: list[Mark | None] = []
    for (starts, ends), hit in zip(windows, touching, strict=True):
        tokens = np.flatnonzero(hit)
        whole = len(tokens) and starts[hit].min() <= first and ends[hit].max() >= last
        marks.append((int(tokens[0]), int(tokens[-1])) if whole else None)
    return marks


class Marker:
    """Marks the answers of one split, and counts those whose mark says something else than the answer."""

    def __init__(self, source: str, longest: int) -> None:
        """Start counting.

        Args:
            source: what is marked, such as "squad, train", for the report.
            longest: tokens that a predicted answer may have.
        """
        self.source, self.longest, self.answers = source, longest, 0
        self._found: dict[str, list[str]] = {}

    def targets(
        self, rows: Mapping[str, Any], of_row: Sequence[int], offsets: Sequence[Offsets], missing: Sequence[int]
    ) -> Iterator[Mark]:
        """Yield the first and last token of the answer for each window.

        Args:
            rows: columns of the questions.
            of_row: each window's question; windows of a question follow one another.
            offsets: of each window's tokens.
            missing: each window's position that stands for "not in this window".
        """
        for row, group in groupby(range(len(of_row)), key=of_row.__getitem__):
            own, words = list(group), Words(rows["context"][row])
            if not rows["answers"][row]["text"]:
                yield from ((missing[at], missing[at]) for at in own)
                continue
            answer, windows = Answer.of(rows["answers"][row]), [words.of(*offsets[at]) for at in own]
            marks = mark(windows, answer)
            self._check(rows["id"][row], rows["context"][row], answer, windows, marks)
            yield from (found or (missing[at], missing[at]) for found, at in zip(marks, own, strict=True))

    def report(self) -> None:
        """Warn about the answers whose marks are wrong, kind by kind, with their number and the first of them."""
        for kind, examples in self._found.items():
            share = 100 * len(examples) / self.answers
            log.warning(
                "%s: %d of %d answers (%.3g %%) %s. First: %s",
                self.source,
                len(examples),
                self.answers,
                share,
                kind,
                examples[0],
            )

    def _check(
        self, name: str, passage: str, answer: Answer, windows: Sequence[Offsets], marks: Sequence[Mark | None]
    ) -> None:
        """Read an answer's mark back from the passage."""
        self.answers += 1
        where = f"question {name!r}, answer {shown(answer.text)}"
        marked = next(((*window, *found) for window, found in zip(windows, marks, strict=True) if found), None)
        if marked is None:
            self._add("stand whole in no window of tokens, and count as not there", where)
            return
        starts, ends, first, last = marked
        read = passage[starts[first] : ends[last]]
        if not answer.is_read_as(read):
            self._add("are parts of larger tokens, whose rest is marked with them", f"{where}, read as {shown(read)}")
        elif last - first >= self.longest:
            kind = f"have more than the {self.longest} tokens that a predicted answer may have"
            self._add(kind, f"{where}, of {last - first + 1} tokens")

    def _add(self, kind: str, example: str) -> None:
        self._found.setdefault(kind, []).append(example)
