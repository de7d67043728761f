"""Which rows of a task's data belong together: those of a group, or pieces of one text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optkit.tasks.data.pieces import sentences_of
from optkit.tasks.data.tables import GROUP, numbered

if TYPE_CHECKING:
    from datasets import Dataset

    from optkit.tasks.base import Split


class Belonging:
    """Base class of tasks for what rows have in common."""

    def wholes(self, split: Split) -> list[str]:
        """Return the text of each row by which rows belong together: they have the same one, or pieces of it."""
        return [own[0] for own in self.texts(split)]  # type: ignore[attr-defined]

    def belonging(self, split: Split) -> list[list[int]]:
        """Return the numbers of the groups that each row belongs to: its own in the data, or the texts it is a piece of."""
        rows: Dataset = self.examples(split)  # type: ignore[attr-defined]
        if GROUP in rows.column_names:
            return [[number] for number in numbered(rows[GROUP][:])]
        return sentences_of(self.wholes(split))
