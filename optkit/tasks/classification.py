"""Classification of a text or a pair of texts: accuracy, F1, Matthews correlation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow
from datasets import ClassLabel, Dataset, DatasetInfo, Features, Value
from transformers import PreTrainedTokenizerBase

from optkit.tasks.base import Prediction, Split
from optkit.tasks.collate import check_logits
from optkit.tasks.data import hub
from optkit.tasks.data.classes import class_indices, classes_of, label_names
from optkit.tasks.data.reading import find, read
from optkit.tasks.data.tables import Table, check_text, fingerprint, limited, listed, problem, table_of

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


class Classification:
    """A data set of labelled texts; follows `optkit.tasks.base.Task`."""

    head: Literal["classification", "question_answering"] = "classification"
    metric = "accuracy"
    training: Mapping[str, Any] = {}

    def __init__(
        self, name: str, tables: Mapping[Split, Table], limit_train: int | None = None, max_length: int = 128
    ) -> None:
        """Checks both tables.

        Args:
            name: of the task, as on the command line.
            tables: with text columns (`TEXT_COLUMNS`) and `label`.
            limit_train: how many training rows to keep; all by default.
            max_length: longest feature in tokens; longer texts are cut.

        Raises:
            InputError: a column, text or label is missing or wrong; the message names the row.
        """
        self.name, self.max_length = name, max_length
        names: dict[Split, list[str]] = {split: label_names(table) for split, table in tables.items()}
        self.labels = classes_of(tables["train"], names["train"])
        self.text_columns = text_columns(tables["train"])
        limits: dict[Split, int | None] = {"train": limit_train, "dev": None}
        self._examples: dict[Split, Dataset] = {
            split: self._checked(table, class_indices(table, names[split], self.labels), limits[split])
            for split, table in tables.items()
        }

    def examples(self, split: Split) -> Dataset:
        """The text columns and `label` (a `ClassLabel`)."""
        return self._examples[split]

    def encode(self, split: Split, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """One feature per example: the tokenizer's `model_input_names`, `labels`, `example`, `length`."""
        rows = self._examples[split]
        texts = [rows[column][:] for column in self.text_columns]
        encoded = tokenizer(*texts, truncation=True, max_length=min(self.max_length, tokenizer.model_max_length))
        columns = {name: encoded[name] for name in tokenizer.model_input_names}
        lengths = [len(tokens) for tokens in encoded["input_ids"]]
        return Dataset.from_dict(
            {**columns, "labels": rows["label"][:], "example": list(range(len(rows))), "length": lengths}
        )

    def predict(self, features: Dataset, logits: Sequence[np.ndarray]) -> list[Prediction]:
        """The class index of the highest logit, example by example.

        Args:
            features: of the dev split, in any order.
            logits: [classes] for each feature.

        Raises:
            GateError: a logit is not finite.
        """
        check_logits(features, logits)
        predictions = np.empty(len(logits), dtype=np.int64)
        predictions[features["example"][:]] = np.stack(list(logits)).argmax(axis=-1)
        return predictions.tolist()

    def score(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """Accuracy, F1 (of the second class where there are two, macro otherwise) and Matthews correlation."""
        from sklearn.metrics import f1_score, matthews_corrcoef

        gold = self._gold(predictions)
        average = "binary" if len(self.labels) == 2 else "macro"
        return {
            "accuracy": float(self.example_scores(predictions).mean()),
            "f1": 100.0 * float(f1_score(gold, predictions, average=average, zero_division=0.0)),
            "matthews": 100.0 * float(matthews_corrcoef(gold, predictions)),
        }

    def example_scores(self, predictions: Sequence[Prediction]) -> np.ndarray:
        """100 where the class is right and 0 where it is wrong, [examples]."""
        return 100.0 * (np.asarray(predictions) == self._gold(predictions))

    def fingerprint(self) -> str:
        """SHA-256 of the texts, labels and class names of both splits."""
        return fingerprint(self._examples["train"], self._examples["dev"])

    def _gold(self, predictions: Sequence[Prediction]) -> np.ndarray:
        """The dev split's class indices, [examples]."""
        gold = np.array(self._examples["dev"]["label"][:])
        if len(predictions) != len(gold):
            raise ValueError(f"{len(predictions)} predictions for {len(gold)} dev examples; expected one for each")
        return gold

    def _checked(self, table: Table, labels: Sequence[int], limit: int | None) -> Dataset:
        """The rows that are used, after every text was checked."""
        for column in self.text_columns:
            _check_column(table, column)
        keep = limited(len(table), limit)
        columns = {name: pyarrow.array([table.columns[name][row] for row in keep]) for name in self.text_columns}
        columns["label"] = pyarrow.array([labels[row] for row in keep])
        kinds = {name: Value("string") for name in self.text_columns}
        features = Features({**kinds, "label": ClassLabel(names=list(self.labels))})
        return Dataset(pyarrow.table(columns), info=DatasetInfo(features=features))


def text_columns(table: Table) -> tuple[str, ...]:
    """The column with the text, or the two with the pair.

    Raises:
        InputError: no known column, or more than one reading of them.
    """
    present = [names for names in TEXT_COLUMNS if set(names) <= set(table.columns)]
    largest = [names for names in present if not any(set(names) < set(other) for other in present)]
    if len(largest) == 1:
        return largest[0]
    expected = "; or ".join(" and ".join(names) for names in reversed(TEXT_COLUMNS))
    if largest:
        found = f"texts under several names ({'; '.join(' and '.join(names) for names in largest)})"
        raise problem(table.source, found, f"one of: {expected}", "rename the columns that are not the model's input")
    found = f"no column with text (columns: {listed(table.columns)})"
    raise problem(table.source, found, expected, "rename the column that holds the text")


def read_tables(data: Path | None) -> dict[Split, Table]:
    """Both splits of a folder, or of SST-2 on the hub."""
    if data is not None:
        return {split: read(path) for split, path in find(data).items()}
    splits = hub.fetch("nyu-mll/glue", "sst2")
    return {split: table_of(rows, f"nyu-mll/glue sst2, {split}") for split, rows in splits.items()}


def sample(limit_train: int | None = None) -> Classification:
    """The data set that ships with the package."""
    from optkit.tasks.data.sample_reviews import LABELS, MAX_LENGTH, rows

    splits: tuple[Split, ...] = ("train", "dev")
    tables: dict[Split, Table] = {}
    for split in splits:
        made = rows(split)
        columns = {name: [row[name] for row in made] for name in ("text", "label")}
        tables[split] = Table(f"sample {split}", columns, range(1, len(made) + 1), "row", class_names=LABELS)
    return Classification("sample", tables, limit_train, max_length=MAX_LENGTH)


def _check_column(table: Table, column: str) -> None:
    """Raises InputError where the column is missing or a row of it is not text."""
    if column not in table.columns:
        found = f"no column {column!r} (columns: {listed(table.columns)})"
        raise problem(table.source, found, f"{column!r}, as in the train file", "name the columns alike in both files")
    for row, value in enumerate(table.columns[column]):
        check_text(table.at(row), column, value)
