"""Classification of a text or a pair of texts: accuracy, F1, Matthews correlation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from optkit.tasks.base import LONGEST, Prediction, Split, Task
from optkit.tasks.collate import check_logits, truncated
from optkit.tasks.data.classes import class_indices, classes_of, label_names
from optkit.tasks.data.columns import mapped
from optkit.tasks.data.data_settings import DataSettings
from optkit.tasks.data.tables import Table, check_text, limited, problem
from optkit.tasks.degenerate import Doubt, of_classes
from optkit.tasks.outcomes import CLASSES, METRICS, in_words
from optkit.tasks.outcomes import value as metric_of
from optkit.tasks.served import ServedForm, Tensors, TextSettings

if TYPE_CHECKING:
    import torch
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
REPORTED = ("accuracy", "f1", "matthews")
"""Metrics that every score has."""
FIELDS = ("text", "text_pair")
"""What a client calls them."""
HUB = {"sst2": "hub:nyu-mll/glue/sst2"}
"""Names of the tasks whose data is on the Hugging Face hub."""


class Label(NamedTuple):
    """The served answer to a text."""

    label: str
    probability: float
    probabilities: dict[str, float]

    def __str__(self) -> str:
        return self.label

    def shown(self) -> str:
        """All classes in lines, the most probable first."""
        width = max(map(len, self.probabilities))
        ordered = sorted(self.probabilities.items(), key=lambda pair: -pair[1])
        return "\n".join(f"{label:<{width}}  {share:.3f}" for label, share in ordered)


class ServedLabels(ServedForm):
    """A batch of texts, or of pairs, and the label of each with its probability, and all probabilities."""

    def logits_shape(self, settings: TextSettings) -> tuple[int, ...]:
        return (len(settings.labels),)

    def outputs(self, settings: TextSettings) -> Tensors:
        shares = ("FP32", (len(settings.labels),))
        return {"label": ("STRING", (1,)), "probability": ("FP32", (1,)), "probabilities": shares}

    def answer(self, logits: np.ndarray, beside: Mapping[str, np.ndarray], settings: TextSettings) -> dict[str, np.ndarray]:
        """The class of the highest logit, as the task predicts it, and the softmax."""
        logits = logits.astype(np.float64)
        shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        chosen = logits.argmax(axis=-1)[:, None]
        names = np.array([label.encode() for label in settings.labels], dtype=object)
        return {
            "label": names[chosen],
            "probability": np.take_along_axis(shares, chosen, axis=-1).astype(np.float32),
            "probabilities": shares.astype(np.float32),
        }

    def decode(self, outputs: Mapping[str, np.ndarray], labels: Sequence[str]) -> list[Label]:
        rows = zip(*(outputs[name] for name in ("label", "probability", "probabilities")), strict=True)
        return [
            Label(label[0].decode(), float(share[0]), dict(zip(labels, map(float, shares), strict=True)))
            for label, share, shares in rows
        ]


class Classification(Task):
    """A data set of labelled texts."""

    head = "classification"
    axes = ("batch", "class")
    choice = "class"
    targets = ("labels",)
    head_modules = ("classifier.", "pre_classifier.")
    served = ServedLabels()
    metric = "accuracy"
    metrics = tuple(METRICS)

    def __init__(
        self, name: str, tables: Mapping[Split, Table], limit_train: int | None = None, max_length: int = LONGEST
    ) -> None:
        """Check both tables and encode their labels.

        Args:
            name: of the task, as on the command line.
            tables: with text columns (`TEXT_COLUMNS`) and `label`.
            limit_train: how many training rows to keep; all by default.
            max_length: longest feature in tokens; longer texts are cut.

        Raises:
            InputError: a column, text or label is missing or wrong; the message names the row.
        """
        names: dict[Split, list[str]] = {split: label_names(table) for split, table in tables.items()}
        self.labels = classes_of(tables["train"], names["train"])
        self.text_columns = text_columns(tables["train"])
        limits: dict[Split, int | None] = {"train": limit_train, "dev": None}
        examples: dict[Split, Dataset] = {
            split: self._checked(table, class_indices(table, names[split], self.labels), limits[split])
            for split, table in tables.items()
        }
        super().__init__(name, examples, max_length)

    @classmethod
    def load(cls, name: str, data: DataSettings) -> Task:
        from optkit.tasks.data.source import read_tables

        tables = read_tables(name, data.source, HUB.get(name))
        named = {split: mapped(table, data, TEXT_COLUMNS) for split, table in tables.items()}
        return cls(name, named, data.limit_train)

    def encode(self, split: Split, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """One feature per example: the tokenizer's `model_input_names`, `labels`, `example`, `length`, `whole_length`."""
        from datasets import Dataset

        rows = self.examples(split)
        columns = truncated(tokenizer, [rows[column][:] for column in self.text_columns], self.length(tokenizer))
        return Dataset.from_dict({**columns, "labels": rows["label"][:], "example": list(range(len(rows)))})

    @staticmethod
    def auto_class() -> Any:
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification

    @staticmethod
    def logits(output: Any) -> torch.Tensor:
        return output["logits"]

    @staticmethod
    def loss(output: Any, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Cross-entropy of the labels."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(output["logits"].float(), targets["labels"])

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
        """Accuracy, F1 (of the second of two classes, else macro), Matthews correlation, and the headline metric."""
        outcomes = self.outcomes(predictions)
        return {name: metric_of(outcomes, name) for name in dict.fromkeys((*REPORTED, self.metric))}

    def outcomes(self, predictions: Sequence[Prediction]) -> np.ndarray:
        """Return the true and the predicted class of each example."""
        found = np.empty(len(predictions), CLASSES)
        found["gold"], found["predicted"], found["classes"] = self._gold(predictions), predictions, len(self.labels)
        return found

    @property
    def metric_in_words(self) -> str:
        return in_words(self.metric, self.labels)

    def weakness(self, features: Dataset, logits: Sequence[np.ndarray]) -> str | None:
        """Return why a teacher is bad: it is right less often than always naming the most frequent class."""
        labels = np.array(features["labels"][:])
        right = float((np.stack(list(logits)).argmax(1) == labels).mean())
        majority = float(np.bincount(labels).max() / len(labels))
        if right >= majority:
            return None
        return (
            f"is right on {100 * right:.1f} % of the training examples; always answering with the most frequent class "
            f"would be on {100 * majority:.1f} %"
        )

    def degenerate(self, predictions: Sequence[Prediction]) -> Doubt | None:
        """Return why predictions are no better than one class, than chance, or than those of renamed classes."""
        return of_classes(self._gold(predictions), np.asarray(predictions, np.int64), self.labels, self.metric)

    def shown(self, prediction: Prediction) -> str:
        """The class's name."""
        return self.labels[prediction]

    def readable(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row with the class's name in place of its index."""
        return {**row, "label": self.shown(row["label"])}

    @property
    def text_fields(self) -> tuple[str, ...]:
        return FIELDS[: len(self.text_columns)]

    def _gold(self, predictions: Sequence[Prediction]) -> np.ndarray:
        """The dev split's class indices, [examples]."""
        self.check_count(predictions)
        return np.array(self.examples("dev")["label"][:])

    def _checked(self, table: Table, labels: Sequence[int], limit: int | None) -> Dataset:
        """The rows that are used, after every text was checked."""
        import pyarrow
        from datasets import ClassLabel, Dataset, DatasetInfo, Features, Value

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
    found = f"no column with text ({table.named})"
    raise problem(table.source, found, expected, "name it: --text-column NAME, or rename the column")


def _check_column(table: Table, column: str) -> None:
    """Raises InputError where the column is missing or a row of it is not text."""
    if column not in table.columns:
        found = f"no column {column!r} ({table.named})"
        raise problem(table.source, found, f"{column!r}, as in the train file", "name the columns alike in both files")
    for row, value in enumerate(table.columns[column]):
        check_text(table.at(row), column, value)
