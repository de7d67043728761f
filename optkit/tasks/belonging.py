"""Which rows of a task's data belong together: those of a group, or pieces of one text."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from optkit.core.errors import InputError
from optkit.tasks.data.leaks import Leaks, Side, find
from optkit.tasks.data.pieces import sentences_of
from optkit.tasks.data.tables import GROUP, numbered, shown

if TYPE_CHECKING:
    from datasets import Dataset

    from optkit.tasks.base import Split


class Drawn(NamedTuple):
    """Groups that intervals draw, int64; None where each example, or outcome, is drawn by itself."""

    examples: NDArray[np.int64] | None
    """Group of each example of the dev split."""
    outcomes: NDArray[np.int64] | None
    """Group of each of `Task.outcomes`, which may be of other units, such as queries."""


class Belonging:
    """Base class of tasks for what rows have in common."""

    def drawn(self) -> Drawn:
        """Return the groups of the dev split, by which intervals are drawn: rows of a group are right or wrong together."""
        rows: Dataset = self.examples("dev")  # type: ignore[attr-defined]
        found = np.array(numbered(rows[GROUP][:])) if GROUP in rows.column_names else None
        return Drawn(found, found)

    def check_groups(self, column: str | None) -> None:
        """Raise `InputError` where groups are named and not there, are one in all of dev, or contradict each other."""
        train, dev = (self.examples(split) for split in ("train", "dev"))  # type: ignore[attr-defined]
        if column is not None and GROUP not in (*train.column_names, *dev.column_names):
            raise InputError(f"--group-column {column}: no such column in train and dev, or such rows have no groups")
        if GROUP in dev.column_names and not self.drawn().examples.any():  # type: ignore[union-attr]
            raise InputError(
                f"dev: found one group, {shown(dev[0][GROUP])}, in all {len(dev):,} rows; expected several, as "
                "intervals draw groups. Fix: name another column: --group-column NAME"
            )

    def wholes(self, split: Split) -> list[str]:
        """Return the text of each row by which rows belong together: they have the same one, or pieces of it."""
        return [own[0] for own in self.texts(split)]  # type: ignore[attr-defined]

    @cached_property
    def leaks(self) -> Leaks:
        """What dev has in common with train, looked for once."""
        return find(self._side("train"), self._side("dev"))

    def _side(self, split: Split) -> Side:
        rows: Dataset = self.examples(split)  # type: ignore[attr-defined]
        groups = rows[GROUP][:] if GROUP in rows.column_names else None
        return Side(self.texts(split), self.wholes(split), groups)  # type: ignore[attr-defined]

    def belonging(self, split: Split) -> list[list[int]]:
        """Return the numbers of the groups that each row belongs to: its own in the data, or the texts it is a piece of."""
        rows: Dataset = self.examples(split)  # type: ignore[attr-defined]
        if GROUP in rows.column_names:
            return [[number] for number in numbered(rows[GROUP][:])]
        return sentences_of(self.wholes(split))
