"""Regression: a value of a text, or of a pair of texts, such as how alike they are."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from optkit.core.json_door import read_json
from optkit.tasks.base import LONGEST, Prediction, Split, Task
from optkit.tasks.collate import by_example
from optkit.tasks.correlation import CORRELATIONS
from optkit.tasks.data.data_settings import DataSettings
from optkit.tasks.data.numbers import values_of
from optkit.tasks.data.tables import Table
from optkit.tasks.degenerate import Doubt, of_values
from optkit.tasks.outcomes import VALUES
from optkit.tasks.outcomes import value as metric_of
from optkit.tasks.served import ServedForm, Tensors, TextSettings
from optkit.tasks.texts import TARGET, TextTask

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
_AGREE = 0.1
"""How far two served answers to the same text may be apart, over the expected ones' mean absolute deviation."""


class Value(NamedTuple):
    """The served answer to a text."""

    value: float

    def __str__(self) -> str:
        return f"{self.value:.4g}"

    def shown(self) -> str:
        """The value alone."""
        return str(self)


class ServedValues(ServedForm):
    """A batch of texts, or of pairs, and the value of each."""

    def logits_shape(self, settings: TextSettings) -> tuple[int, ...]:
        return (1,)

    def outputs(self, settings: TextSettings) -> Tensors:
        return {"value": ("FP32", (1,))}

    def answer(self, logits: np.ndarray, beside: Mapping[str, np.ndarray], settings: TextSettings) -> dict[str, np.ndarray]:
        return {"value": logits.astype(np.float32)}

    def decode(self, outputs: Mapping[str, np.ndarray], labels: Sequence[str]) -> list[Value]:
        return [Value(float(row[0])) for row in outputs["value"]]

    def differing(self, found: Sequence[str], expected: Sequence[str]) -> list[int]:
        """Places where values are further apart than other sums of the same numbers make them."""
        ours, theirs = (np.array(side, dtype=float) for side in (found, expected))
        allowed = _AGREE * np.abs(theirs - theirs.mean()).mean()
        return np.flatnonzero(np.abs(ours - theirs) > allowed).tolist()


class Regression(TextTask):
    """A data set of texts with a number each."""

    head = "regression"
    axes = ("batch", "value")
    choice = None
    served = ServedValues()
    metric = "spearman"
    metrics = tuple(CORRELATIONS)
    class_names = ("value",)

    def __init__(
        self, name: str, tables: Mapping[Split, Table], limit_train: int | None = None, max_length: int = LONGEST
    ) -> None:
        """Check both tables.

        Args:
            name: of the task, as on the command line.
            tables: with text columns (`optkit.tasks.texts.TEXT_COLUMNS`) and `label`.
            limit_train: how many training rows to keep; all by default.
            max_length: longest feature in tokens; longer texts are cut.

        Raises:
            InputError: a column, a text or a value is missing or wrong; the message names the row.
        """
        from datasets import Value as Type

        super().__init__(name, tables, lambda split: values_of(tables[split]), Type("float32"), limit_train, max_length)

    @classmethod
    def load(cls, name: str, data: DataSettings) -> Task:
        return cls(name, cls.read(name, data), data.limit_train)

    def adopt(self, folder: Path, config: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        """Take from a model's configuration whether its value ends in a sigmoid; warn where the data go beyond."""
        from optkit.tasks import value_head

        if config.num_labels == 1 and value_head.stated(config) is None:
            log.info("%s: its config.json states no activation; values are what its head gives, without a sigmoid", folder)
        value_head.adopt(config)
        if not value_head.ends_in_sigmoid(config):
            return
        values = np.concatenate([self.examples(split)[TARGET][:] for split in ("train", "dev")])
        if not 0 <= values.min() <= values.max() <= 1:
            log.warning(
                "%s: its values end in a sigmoid and lie between 0 and 1, those of the data between %.4g and %.4g: "
                "correlations mean what they did, the error and training on values do not. Scale the data to 0 … 1",
                *(folder, values.min(), values.max()),
            )

    def library_files(self, checkpoint: Path, tokenizer: PreTrainedTokenizerBase) -> Mapping[str, Any]:
        from optkit.tasks import value_head

        return {"config.json": value_head.of_graph(read_json(checkpoint / "config.json"))}

    def check_head(self, model: PreTrainedModel) -> None:
        """Raise `InputError` for a model in memory whose configuration states a sigmoid that it does not compute."""
        from optkit.tasks import value_head

        value_head.check(model)

    @staticmethod
    def auto_class() -> Any:
        from optkit.tasks.value_head import AutoModelForValue

        return AutoModelForValue

    @classmethod
    def has_head(cls, config: Any) -> bool:
        return bool(config.num_labels == 1)

    @staticmethod
    def loss(output: Any, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean squared error of the values."""
        from torch.nn.functional import mse_loss

        return mse_loss(output["logits"].float().squeeze(-1), targets["labels"].float())

    def predict(self, features: Dataset, logits: Sequence[np.ndarray]) -> list[Prediction]:
        """The value of each example.

        Args:
            features: of the dev split, in any order.
            logits: [1] for each feature.

        Raises:
            GateError: a logit is not finite.
        """
        predictions: list[Prediction] = by_example(features, logits).astype(float).ravel().tolist()
        return predictions

    def score(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """Spearman's and Pearson's correlation in points, and the mean absolute error in the data's unit."""
        outcomes = self.outcomes(predictions)
        errors = np.abs(outcomes["gold"] - outcomes["predicted"])
        return {**{name: metric_of(outcomes, name) for name in CORRELATIONS}, "mae": float(errors.mean())}

    def outcomes(self, predictions: Sequence[Prediction]) -> np.ndarray:
        """Return the right and the predicted value of each example."""
        found = np.empty(len(predictions), VALUES)
        found["gold"], found["predicted"] = self.gold(predictions), predictions
        return found

    def decision(self, prediction: Prediction) -> Any:
        """None: values move and never flip."""
        return None

    def weakness(self, features: Dataset, logits: Sequence[np.ndarray]) -> str | None:
        """Return why a teacher is bad: its values are further from the right ones than their mean is."""
        values = np.array(features["labels"][:])
        error = float(((np.concatenate(list(logits)) - values) ** 2).mean())
        if error <= (variance := float(values.var())):
            return None
        return f"has a squared error of {error:.3g} on the training examples; always answering their mean has {variance:.3g}"

    def degenerate(self, predictions: Sequence[Prediction]) -> Doubt | None:
        """Return why predictions are no better than a constant value or than values in random order."""
        return of_values(np.array(self.gold(predictions)), np.array(predictions))

    def shown(self, prediction: Prediction) -> str:
        """The value to four digits."""
        return str(Value(prediction))
