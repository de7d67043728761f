"""Base class of tasks whose rows have one text or a pair of texts, each of which becomes one feature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from optkit.tasks.base import LONGEST, Split, Task
from optkit.tasks.collate import truncated
from optkit.tasks.data.columns import mapped
from optkit.tasks.data.data_settings import DataSettings
from optkit.tasks.data.tables import Table, check_text, limited, problem

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

TEXT_COLUMNS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question1", "question2"),
    ("text", "text_pair"),
    ("sentence",),
    ("text",),
)
"""What the columns with the text may be called, pairs before their parts."""
FIELDS = ("text", "text_pair")
"""What a client calls them."""
TARGET = "label"
"""Column of `examples` with what is learned, and of the features in the plural."""


class TextTask(Task):
    """Texts, or pairs of them, with something to learn in the column `TARGET`."""

    targets: ClassVar[tuple[str, ...]] = ("labels",)
    usual_columns: ClassVar[tuple[tuple[str, ...], ...]] = TEXT_COLUMNS
    """What the columns with the text may be called, pairs before their parts."""
    head_modules = ("classifier.", "pre_classifier.")
    library_classes: ClassVar[Mapping[str, str]] = {"optimum": "ModelForSequenceClassification"}

    def __init__(
        self,
        name: str,
        tables: Mapping[Split, Table],
        targets: Callable[[Split], Sequence[Any]],
        feature: Any,
        limit_train: int | None = None,
        max_length: int = LONGEST,
    ) -> None:
        """Check the texts and keep the rows that are used.

        Args:
            name: of the task, as on the command line.
            tables: with text columns (`TEXT_COLUMNS`).
            targets: function to what is learned from a split, one entry per row.
            feature: its type in `datasets`.
            limit_train: how many training rows to keep; all by default.
            max_length: longest feature in tokens; longer texts are cut.

        Raises:
            InputError: a column or a text is missing or wrong; the message names the row.
        """
        self.text_columns = text_columns(tables["train"], self.usual_columns)
        limits: dict[Split, int | None] = {"train": limit_train, "dev": None}
        examples = {split: self._kept(table, targets(split), feature, limits[split]) for split, table in tables.items()}
        super().__init__(name, examples, max_length)

    @classmethod
    def read(cls, name: str, data: DataSettings, on_hub: str | None = None) -> dict[Split, Table]:
        """Return the tables of both splits with their columns named as tasks look for them.

        Args:
            name: of the task.
            data: where they are, and what their columns are called.
            on_hub: what to fetch where no source is given.
        """
        from optkit.tasks.data.source import read_tables

        tables = read_tables(name, data.source, on_hub)
        return {split: mapped(table, data, cls.usual_columns) for split, table in tables.items()}

    def encode(self, split: Split, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """One feature per example: the tokenizer's `model_input_names`, `targets`, `example`, `length`, `whole_length`."""
        from datasets import Dataset

        rows = self.examples(split)
        columns = truncated(tokenizer, [rows[column][:] for column in self.text_columns], self.length(tokenizer))
        return Dataset.from_dict({**columns, **self.learned(split), "example": list(range(len(rows)))})

    def learned(self, split: Split) -> dict[str, list[Any]]:
        """Return the `targets` of a split's examples."""
        return {"labels": self.examples(split)[TARGET][:]}

    @staticmethod
    def auto_class() -> Any:
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification

    @staticmethod
    def logits(output: Any) -> Any:
        return output["logits"]

    @property
    def text_fields(self) -> tuple[str, ...]:
        return FIELDS[: len(self.text_columns)]

    def gold(self, predictions: Sequence[Any]) -> list[Any]:
        """Return what is right for each prediction on the dev split.

        Raises:
            ValueError: there is not one prediction per example.
        """
        self.check_count(predictions)
        found: list[Any] = self.examples("dev")[TARGET][:]
        return found

    def _kept(self, table: Table, targets: Sequence[Any], feature: Any, limit: int | None) -> Dataset:
        """The rows that are used, after every text was checked."""
        import pyarrow
        from datasets import Dataset, DatasetInfo, Features, Value

        for column in self.text_columns:
            _check_column(table, column)
        keep = limited(len(table), limit)
        features = Features({**{name: Value("string") for name in self.text_columns}, TARGET: feature})
        columns = {name: [table.columns[name][row] for row in keep] for name in self.text_columns}
        columns[TARGET] = [targets[row] for row in keep]
        return Dataset(pyarrow.table(columns, schema=features.arrow_schema), info=DatasetInfo(features=features))


def text_columns(table: Table, usual: Sequence[tuple[str, ...]] = TEXT_COLUMNS) -> tuple[str, ...]:
    """The column with the text, or the two with the pair.

    Args:
        table: has them.
        usual: what they may be called, pairs before their parts.

    Raises:
        InputError: no known column, or more than one reading of them.
    """
    present = [names for names in usual if set(names) <= set(table.columns)]
    largest = [names for names in present if not any(set(names) < set(other) for other in present)]
    if len(largest) == 1:
        return largest[0]
    expected = "; or ".join(" and ".join(names) for names in reversed(usual))
    if largest:
        found = f"texts under several names ({'; '.join(' and '.join(names) for names in largest)})"
        raise problem(table.source, found, f"one of: {expected}", "rename the columns that are not the model's input")
    found = f"no column with text ({table.named})"
    raise problem(table.source, found, expected, "name it: --text-column NAME, or rename the column")


def _check_column(table: Table, column: str) -> None:
    """Raises InputError where the column is missing or a row of it is not text."""
    if column not in table.columns:
        found = f"no column {column!r} ({table.named})"
        raise problem(table.source, found, f"{column!r}, as in the train file", "name the columns alike in both files")
    for row, value in enumerate(table.columns[column]):
        check_text(table.at(row), column, value)
