"""What the dev split has in common with train: rows that are equal or nearly so, and texts that are pieces of others.

Scores on such rows tell how well a model remembers.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from optkit.tasks.data.pieces import Pieces, Words, words_of

NEAR = 0.8
"""Share of the words of both rows that nearly equal ones have in common (Jaccard's index)."""
_SHORT = 40
"""Different words from which on a row is long."""
MOST = 200_000
"""Rows of train to look at; of more so many, evenly spaced."""


class Side(NamedTuple):
    """Rows of a split."""

    texts: Sequence[tuple[str, ...]]
    """Texts of each row."""
    wholes: Sequence[str]
    """The text of each row by which rows belong together, such as a passage that several questions are about."""
    groups: Sequence[str] | None = None
    """Group of each row."""

    def spaced(self) -> "Side":
        """Return `MOST` of the rows at most."""
        if len(self.texts) <= MOST:
            return self
        rows = np.linspace(0, len(self.texts) - 1, MOST).astype(int).tolist()
        return self._replace(texts=[self.texts[row] for row in rows], wholes=[self.wholes[row] for row in rows])


class Leaks(NamedTuple):
    """Number of rows of the dev split that tell something of train; each row counts once, as the first that it is."""

    equal: int
    """Rows with the texts of a row of train, whatever the case and the punctuation."""
    near: int
    """Rows that are nearly equal to one."""
    pieces: int
    """Rows whose text is a piece of one of train, is for the most part one, or, beside other texts, is the same."""
    grouped: int
    """Rows of a group that train has rows of, whatever else they are."""
    rows: int
    """All rows of dev."""

    def sentences(self) -> Iterator[str]:
        """Yield what to say of each kind that there is."""
        found = {
            "are of groups that train has rows of; split by group: optkit split": self.grouped,
            "are in train too; scores on them say how well a model remembers": self.equal,
            f"are nearly equal to one of train: {NEAR:.0%} of their words or more are the same": self.near,
            "share a text with train in another way: "
            "it is a piece of one there, is one for the most part, or is the same": self.pieces,
        }
        for words, count in found.items():
            if count:
                yield f"{count:,} of {self.rows:,} rows ({count / self.rows:.1%}) {words}"


def find(train: Side, dev: Side) -> Leaks:
    """Look for rows of dev that tell something of train.

    Args:
        train: what is learned from.
        dev: what models are scored on.
    """
    groups = set(train.groups or ())
    grouped = sum(group in groups for group in dev.groups or ())
    train = train.spaced()
    learned, asked = ([tuple(map(words_of, texts)) for texts in side.texts] for side in (train, dev))
    known = set(learned)
    equal = {row for row, words in enumerate(asked) if words in known}
    near = _near(learned, asked) - equal
    pieces = set(_pieces(list(map(words_of, train.wholes)), list(map(words_of, dev.wholes)))) - equal - near
    return Leaks(len(equal), len(near), len(pieces), grouped, len(asked))


def _pieces(learned: Sequence[Words], asked: Sequence[Words]) -> Iterator[int]:
    """Yield the rows whose words stand in others', are others' by half or more, or are the same."""
    known, index = set(learned), Pieces(asked)
    held = {piece for words in known for piece in index.within(words)} | known
    index = Pieces(known)
    for row, words in enumerate(asked):
        if words in held or any(2 * len(piece) >= len(words) for piece in index.within(words)):
            yield row


def _near(learned: Sequence[tuple[Words, ...]], asked: Sequence[tuple[Words, ...]]) -> set[int]:
    """Return the rows of which another has nearly the same words.

    Rows that are alike have some of their rarest words in common: only such are compared (prefix filtering, Chaudhuri et al.
    2006), short ones by two of them, as they may be made of few words.
    """
    train, dev = ([{word for words in row for word in words} for row in side] for side in (learned, asked))
    counts = Counter(word for side in (train, dev) for row in side for word in row)
    index: dict[tuple[str, ...], list[int]] = {}
    for place, row in enumerate(dev):
        shared = [count for count, short in ((2, True), (1, False)) if _may_be_near(len(row), short)]
        for key in (key for count in shared for key in _rarest(row, counts, count)):
            index.setdefault(key, []).append(place)
    found: set[int] = set()
    for row in train:
        for key in _rarest(row, counts, 2 if len(row) < _SHORT else 1):
            found.update(place for place in index.get(key, ()) if place not in found and _alike(row, dev[place]))
    return found


def _may_be_near(count: int, short: bool) -> bool:
    """Whether a row of so many words may be near a short row, or near a long one."""
    return NEAR * count < _SHORT if short else count >= NEAR * _SHORT


def _alike(row: set[str], other: set[str]) -> bool:
    common = len(row & other)
    return common >= _share(len(row) + len(other) - common)


def _rarest(row: Iterable[str], counts: Counter[str], shared: int) -> Iterator[tuple[str, ...]]:
    """Yield combinations of a row's rarest words, of which any row that is near has at least one too.

    Args:
        row: its words.
        counts: how many rows have each word.
        shared: number of words in a combination.
    """
    ordered = sorted(row, key=lambda word: (counts[word], word))
    return combinations(ordered[: len(ordered) - _share(len(ordered)) + shared], shared)


def _share(count: int) -> int:
    """Return how many of so many words have to be the same, whatever the rounding of floats."""
    return math.ceil(NEAR * count - 1e-9)
