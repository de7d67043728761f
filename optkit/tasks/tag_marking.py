"""Marks the pieces of texts with the tags of their tokens, the targets of training, and counts tokens that get none."""

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optkit.core.errors import InputError
from optkit.tasks import entities, spans
from optkit.tasks.collate import IGNORED
from optkit.tasks.data.iob import OUTSIDE

log = logging.getLogger(__name__)


def token_places(tokens: Sequence[str]) -> list[tuple[int, int]]:
    """Return where each token starts and ends in the text that blanks join them to."""
    ends = list(accumulate(tokens, lambda end, token: end + 1 + len(token), initial=-1))[1:]
    return [(end - len(token), end) for end, token in zip(ends, tokens, strict=True)]


def first_units(units: entities.Units, places: Sequence[tuple[int, int]]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the first unit of each token, and whether it has one.

    Args:
        units: of the text.
        places: of the tokens in it.
    """
    starts, ends = np.array(places).T
    first = np.searchsorted(units[:, 0], starts)
    return first, np.append(units[:, 0], np.iinfo(np.int64).max)[first] < ends


class TagMarker:
    """Marks one split, and counts the tokens of which the tokenizer makes nothing."""

    def __init__(self, source: str, labels: Sequence[str], pieces: str, place: Callable[[int, int], str]) -> None:
        """Start counting.

        Args:
            source: what is marked, for the report.
            labels: all tags, in the order of the logits.
            pieces: which pieces get a tag.
            place: function from a row and a token of it to where that was read.
        """
        self.source, self.labels, self.pieces, self.place = source, labels, pieces, place
        self._inside = np.array([labels.index(f"I{tag[1:]}") if tag != OUTSIDE else at for at, tag in enumerate(labels)])
        self._tokens, self._dropped = 0, list[str]()

    def columns(self, rows: Mapping[str, Any], first: int, encoded: Any, offsets: bool) -> dict[str, list[Any]]:
        """Return the columns `labels`, `example` and `length` of features, one entry per window.

        Args:
            rows: columns of the examples.
            first: number of the first example.
            encoded: their windows, as the tokenizer gives them.
            offsets: also return `starts` and `ends` of the pieces in the text, in characters.

        Raises:
            InputError: the tokenizer drops a token that belongs to an entity.
        """
        found = list(spans.positions(encoded, 0))
        of_row = encoded["overflow_to_sample_mapping"]
        labels: list[list[int]] = []
        for row, group in groupby(range(len(of_row)), key=of_row.__getitem__):
            windows = entities.stripped([found[at] for at in group], rows["text"][row])
            units = entities.units_of(windows, rows["text"][row], self.pieces)
            targets = self._targets(first + row, rows["tokens"][row], rows["tags"][row], units)
            labels += [_marked(units, targets, starts) for starts, _ in windows]
        columns: dict[str, list[Any]] = {"labels": labels, "example": [first + row for row in of_row]}
        columns["length"] = [len(one) for one in labels]
        if offsets:
            columns["starts"], columns["ends"] = map(list, zip(*found, strict=True))
        return columns

    def report(self) -> None:
        """Warn of tokens that were dropped, with their number and the first of them."""
        if self._dropped:
            log.warning(
                "%s: %d of %d tokens are dropped by the tokenizer, and count as O. First: %s",
                *(self.source, len(self._dropped), self._tokens, self._dropped[0]),
            )

    def _targets(self, row: int, tokens: Sequence[str], tags: Sequence[int], units: entities.Units) -> NDArray[np.int64]:
        """The class index of each unit: the tag of its token, `I-` for all but the first of them."""
        places = token_places(tokens)
        first, has_one = first_units(units, places)
        self._tokens += len(tokens)
        for token in np.flatnonzero(~has_one).tolist():
            self._drop(self.place(row, token), tokens[token], self.labels[tags[token]])
        owner = np.searchsorted([start for start, _ in places], units[:, 0], side="right") - 1
        found: NDArray[np.int64] = self._inside[np.array(tags)[owner]]
        found[first[has_one]] = np.array(tags)[has_one]
        return found

    def _drop(self, where: str, token: str, tag: str) -> None:
        said = f"{where}: the tokenizer makes nothing of the token {token!a}"
        if tag != OUTSIDE:
            raise InputError(f"{said}, whose tag is {tag}; expected one that it reads. Fix: take the token out, or tag it O")
        self._dropped.append(said)


def _marked(units: entities.Units, targets: NDArray[np.int64], starts: NDArray[np.int32]) -> list[int]:
    """Return the target of each piece of a window."""
    held, at = entities.places(units, starts)
    found = np.full(len(starts), IGNORED)
    found[at] = targets[held]
    marked: list[int] = found.tolist()
    return marked
