"""Classification of a text or a pair of texts: accuracy, F1, Matthews correlation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from optkit.tasks.base import LONGEST, Prediction, Split, Task
from optkit.tasks.choices import Choices
from optkit.tasks.collate import by_example
from optkit.tasks.data.classes import class_indices, classes_of, label_names
from optkit.tasks.data.data_settings import DataSettings
from optkit.tasks.data.tables import Table
from optkit.tasks.degenerate import Doubt, of_classes
from optkit.tasks.outcomes import CLASSES, METRICS, in_words
from optkit.tasks.outcomes import value as metric_of
from optkit.tasks.served import ServedForm, Tensors, TextSettings
from optkit.tasks.texts import TextTask

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

REPORTED = ("accuracy", "f1", "matthews")
"""Metrics that every score has."""
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


class Classification(TextTask):
    """A data set of labelled texts."""

    head = "classification"
    axes = ("batch", "class")
    choice = "class"
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
        from datasets import ClassLabel

        names: dict[Split, list[str]] = {split: label_names(table) for split, table in tables.items()}
        self.labels = classes_of(tables["train"], names["train"])

        def targets(split: Split) -> list[int]:
            return class_indices(tables[split], names[split], self.labels)

        super().__init__(name, tables, targets, ClassLabel(names=list(self.labels)), limit_train, max_length)

    @classmethod
    def load(cls, name: str, data: DataSettings) -> Task:
        return cls(name, cls.read(name, data, HUB.get(name)), data.limit_train)

    @classmethod
    def has_head(cls, config: Any) -> bool:
        return config.num_labels > 1 and config.problem_type in (None, "single_label_classification")

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
        predictions: list[Prediction] = by_example(features, logits).argmax(axis=-1).tolist()
        return predictions

    def choices(self, features: Dataset, logits: Sequence[np.ndarray]) -> Iterator[Choices]:
        """The classes."""
        for label, row in zip(features["labels"][:], logits, strict=True):
            yield Choices(row[None], np.eye(len(row))[[label]])

    def score(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """Accuracy, F1 (of the second of two classes, else macro), Matthews correlation, and the headline metric."""
        outcomes = self.outcomes(predictions)
        return {name: metric_of(outcomes, name) for name in dict.fromkeys((*REPORTED, self.metric))}

    def outcomes(self, predictions: Sequence[Prediction]) -> np.ndarray:
        """Return the true and the predicted class of each example."""
        found = np.empty(len(predictions), CLASSES)
        found["gold"], found["predicted"], found["classes"] = self.gold(predictions), predictions, len(self.labels)
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
        return of_classes(np.array(self.gold(predictions)), np.asarray(predictions, np.int64), self.labels, self.metric)

    def shown(self, prediction: Prediction) -> str:
        """The class's name."""
        return self.labels[prediction]

    def readable(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row with the class's name in place of its index."""
        return {**row, "label": self.shown(row["label"])}
