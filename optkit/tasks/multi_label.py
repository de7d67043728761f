"""Several labels of a text, or of a pair of texts: micro and macro F1, and how well the labels are ranked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from optkit.tasks.base import LONGEST, Prediction, Split, Task
from optkit.tasks.choices import Choices
from optkit.tasks.collate import by_example
from optkit.tasks.data.data_settings import DataSettings
from optkit.tasks.data.tables import GROUP, Table
from optkit.tasks.deciding import Decisions
from optkit.tasks.degenerate import Doubt
from optkit.tasks.degenerate_sets import of_sets
from optkit.tasks.label_sets_metric import best_thresholds, ranking_precision
from optkit.tasks.outcomes import SET_METRICS, sets
from optkit.tasks.outcomes import value as metric_of
from optkit.tasks.served import ServedForm, Tensors, TextSettings
from optkit.tasks.texts import TEXT_COLUMNS, TextTask

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

NOTHING = "(none)"
"""An empty set of labels, as text for people."""


class Labels(NamedTuple):
    """The served answer to a text."""

    labels: tuple[str, ...]
    """The labels that it has, in the order of the model's classes."""
    probabilities: dict[str, float]

    def __str__(self) -> str:
        return ", ".join(self.labels) or NOTHING

    def shown(self) -> str:
        """All labels in lines, the most probable first, those of the text with a star."""
        width = max(map(len, self.probabilities))
        ordered = sorted(self.probabilities.items(), key=lambda pair: -pair[1])
        return "\n".join(f"{'*' if label in self.labels else ' '} {label:<{width}}  {share:.3f}" for label, share in ordered)


class Chosen(NamedTuple):
    """The prediction for an example."""

    labels: tuple[int, ...]
    """Class indices, in order."""
    logits: NDArray[Any]
    """Logits of all classes, which rank them."""


class ServedLabelSets(ServedForm):
    """A batch of texts, or of pairs, and the labels of each with their probabilities, and all probabilities."""

    def logits_shape(self, settings: TextSettings) -> tuple[int, ...]:
        return (len(settings.labels),)

    def outputs(self, settings: TextSettings) -> Tensors:
        shape = (len(settings.labels),)
        return {"labels": ("STRING", shape), "probability": ("FP32", shape), "probabilities": ("FP32", shape)}

    def answer(self, logits: np.ndarray, beside: Mapping[str, np.ndarray], settings: TextSettings) -> dict[str, np.ndarray]:
        """The labels above their thresholds, and the sigmoid.

        Returns:
            `labels` [batch, classes]: the chosen ones, the most probable first, and then ""; `probability` of each of them,
            and then 0; `probabilities` of all in the order of the classes.
        """
        shares = (1 + np.tanh(logits.astype(np.float64) / 2)) / 2
        ranked = np.where(_above(logits, settings.more.get("thresholds", ())), shares, -1.0)
        order = np.argsort(-ranked, axis=-1, kind="stable")
        ranked = np.take_along_axis(ranked, order, axis=-1)
        names = np.array([label.encode() for label in settings.labels], dtype=object)
        return {
            "labels": np.where(ranked >= 0, names[order], b""),
            "probability": np.maximum(ranked, 0).astype(np.float32),
            "probabilities": shares.astype(np.float32),
        }

    def decode(self, outputs: Mapping[str, np.ndarray], labels: Sequence[str]) -> list[Labels]:
        rows = zip(outputs["labels"], outputs["probabilities"], strict=True)
        found = [({name.decode() for name in names}, shares) for names, shares in rows]
        return [
            Labels(tuple(label for label in labels if label in own), dict(zip(labels, map(float, shares), strict=True)))
            for own, shares in found
        ]


class MultiLabel(TextTask):
    """A data set of texts with any number of labels each."""

    head = "multi_label"
    axes = ("batch", "class")
    choice = "class"
    served = ServedLabelSets()
    config: ClassVar[Mapping[str, Any]] = {"problem_type": "multi_label_classification"}
    metric = "micro_f1"
    metrics = (*SET_METRICS, "lrap")
    fits_thresholds = True

    def __init__(
        self, name: str, tables: Mapping[Split, Table], limit_train: int | None = None, max_length: int = LONGEST
    ) -> None:
        """Check both tables and encode their labels.

        Args:
            name: of the task, as on the command line.
            tables: with text columns (`optkit.tasks.texts.TEXT_COLUMNS`) and lists of labels in `label`.
            limit_train: how many training rows to keep; all by default.
            max_length: longest feature in tokens; longer texts are cut.

        Raises:
            InputError: a column, a text or a label is missing or wrong; the message names the row.
        """
        from datasets import ClassLabel, List

        from optkit.tasks.data import label_sets

        self.labels, indices = label_sets.read(tables)
        kind = List(ClassLabel(names=list(self.labels)))
        super().__init__(name, tables, indices.__getitem__, kind, limit_train, max_length)

    @classmethod
    def load(cls, name: str, data: DataSettings) -> Task:
        from optkit.tasks.data import label_sets
        from optkit.tasks.data.columns import mapped
        from optkit.tasks.data.source import read_tables

        texts = {str(data.text_column), str(data.text_pair_column), *(name for names in TEXT_COLUMNS for name in names)}
        others = texts | {data.group_column or GROUP}
        tables = label_sets.labelled(read_tables(name, data.source), data.label_column, others)
        own = replace(data, label_column=None)
        return cls(name, {split: mapped(table, own, TEXT_COLUMNS) for split, table in tables.items()}, data.limit_train)

    @classmethod
    def has_head(cls, config: Any) -> bool:
        return config.problem_type in (None, cls.config["problem_type"])

    @staticmethod
    def loss(output: Any, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean binary cross-entropy of the labels."""
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits

        logits, labels = output["logits"].float(), targets["labels"]
        right = (labels[:, :, None] == torch.arange(logits.shape[1], device=logits.device)).any(1)
        return binary_cross_entropy_with_logits(logits, right.float())

    @classmethod
    def distributions(cls, logits: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Two choices for each label, whose softmax is the sigmoid: with a student's it is the distillation of each."""
        import torch

        return torch.stack([logits, torch.zeros_like(logits)], dim=-1).flatten(0, -2)

    @classmethod
    def decisions(cls, logits: NDArray[Any], mask: NDArray[Any] | None = None) -> NDArray[Any]:
        """Whether each label is more probable than not."""
        return cls.decider(())(logits, mask)

    @classmethod
    def decider(cls, thresholds: Sequence[float]) -> Decisions:
        return partial(_decisions, thresholds)

    def fit_thresholds(self, features: Dataset, logits: Sequence[NDArray[Any]]) -> tuple[float, ...]:
        """The thresholds of highest micro F1."""
        return tuple(best_thresholds(np.stack(list(logits)), self._hot(features["labels"][:])).tolist())

    def predict(self, features: Dataset, logits: Sequence[NDArray[Any]]) -> list[Prediction]:
        """The labels above their thresholds, example by example.

        Args:
            features: of the dev split, in any order.
            logits: [classes] for each feature.

        Raises:
            GateError: a logit is not finite.
        """
        rows = by_example(features, logits)
        return [Chosen(tuple(np.flatnonzero(_above(row, self.thresholds)).tolist()), row) for row in rows]

    def choices(self, features: Dataset, logits: Sequence[NDArray[Any]]) -> Iterator[Choices]:
        """Whether the text has each of the labels."""
        for right, row in zip(self._hot(features["labels"][:]), logits, strict=True):
            yield Choices(np.stack([row, np.zeros_like(row)], axis=-1), np.stack([right, ~right], axis=-1))

    def score(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """Micro F1, macro F1 and label ranking average precision."""
        outcomes = self.outcomes(predictions)
        return {name: metric_of(outcomes, name) for name in self.metrics}

    def outcomes(self, predictions: Sequence[Prediction]) -> np.ndarray:
        """Return the right and the predicted labels of each example, and how well it is ranked."""
        found = np.empty(len(predictions), sets(len(self.labels)))
        found["gold"] = self._hot(self.gold(predictions))
        found["predicted"] = self._hot([one.labels for one in predictions])
        found["lrap"] = 100.0 * ranking_precision(np.array([one.logits for one in predictions]), found["gold"])
        return found

    @property
    def metric_in_words(self) -> str:
        return f"{self.metric} of {len(self.labels)} labels"

    def class_shares(self, split: Split) -> tuple[Sequence[int], Sequence[str]]:
        """The class index of every label of every row."""
        return [label for labels in self.examples(split)["label"][:] for label in labels], self.labels

    def weakness(self, features: Dataset, logits: Sequence[NDArray[Any]]) -> str | None:
        """Return why a teacher is bad: it ranks the labels no better than by how frequent they are."""
        gold = self._hot(features["labels"][:])
        found = ranking_precision(np.stack(list(logits)), gold).mean()
        frequent = ranking_precision(np.broadcast_to(gold.mean(0), gold.shape), gold).mean()
        if found >= frequent:
            return None
        return (
            f"ranks the labels of the training examples with an average precision of {100 * found:.1f}; by how frequent "
            f"they are it would be {100 * frequent:.1f}"
        )

    def degenerate(self, predictions: Sequence[Prediction]) -> Doubt | None:
        """Return why predictions are all the same, or no better than always the same labels."""
        outcomes = self.outcomes(predictions)
        return of_sets(outcomes["gold"], outcomes["predicted"], self.labels)

    def decision(self, prediction: Prediction) -> Any:
        """The chosen labels."""
        return prediction.labels

    def shown(self, prediction: Prediction) -> str:
        """The labels' names."""
        return self.shown_as(prediction, ())

    def shown_as(self, prediction: Prediction, labels: Sequence[str]) -> str:
        return _named(prediction.labels, labels or self.labels)

    def readable(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row with the labels' names in place of their indices."""
        return {**row, "label": _named(row["label"], self.labels)}

    def _hot(self, indices: Sequence[Sequence[int]]) -> NDArray[np.bool_]:
        """Lists of class indices as bool [examples, classes]."""
        found = np.zeros((len(indices), len(self.labels)), dtype=np.bool_)
        for row, own in zip(found, indices, strict=True):
            row[list(own)] = True
        return found


def _above(logits: NDArray[Any], thresholds: Sequence[float]) -> NDArray[np.bool_]:
    """Whether each logit is above its label's threshold, or above 0 (a probability of a half) without thresholds."""
    found: NDArray[np.bool_] = logits > np.asarray(thresholds if len(thresholds) else 0.0)
    return found


def _named(indices: Sequence[int], labels: Sequence[str]) -> str:
    """Return a set of labels as text for people."""
    return ", ".join(labels[index] for index in indices) or NOTHING


def _decisions(thresholds: Sequence[float], logits: NDArray[Any], mask: NDArray[Any] | None = None) -> NDArray[Any]:
    return _above(logits, thresholds).ravel()
