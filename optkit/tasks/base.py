"""Base class of tasks: a data set, with the encoding, loss, metrics and served form that belong to it.

A task is one file with a subclass of `Task` and a subclass of `optkit.tasks.served.ServedForm`, and a name in
`optkit.tasks.registry`; no other module depends on it. The file also runs inside the server's processes, so it imports
torch, transformers and datasets inside functions.

Terms:

* *example*: one row of the user's data, for which one prediction is made;
* *feature*: one encoded input of the model; a long passage yields several features for one example;
* *feed*: a batch of features, `{name: int64 array [batch, sequence]}`, the input of the graph, the engines and the server;
* *logits*: the model's output, with the task's `axes`, batch first. The axis "token" is padded like the feed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from numpy.typing import NDArray

from optkit.core.errors import InputError
from optkit.tasks.belonging import Belonging
from optkit.tasks.choices import Choosing
from optkit.tasks.data.data_settings import DataSettings
from optkit.tasks.data.tables import GROUP, fingerprint
from optkit.tasks.deciding import Deciding
from optkit.tasks.logits_axes import TOKEN, LogitsAxes
from optkit.tasks.seldom import Seldom
from optkit.tasks.served import ServedForm, TextSettings

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Split = Literal["train", "dev"]
SPLITS: tuple[Split, ...] = ("train", "dev")
Feed = Mapping[str, NDArray[Any]]
Prediction = Any  # a class index (classification), a value (regression) or an answer's text (question answering)

LONGEST = 512
"""Longest feature in tokens unless a task or a user says otherwise; models of shorter positions cut at theirs."""


class OwnModel(NamedTuple):
    """A model that a task defines itself, trained from random weights."""

    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    initialise: Callable[[PreTrainedModel], None]
    """Function that modifies the random weights in place before training."""
    training: Mapping[str, Any]
    """Default training settings of the model, fields of `Training`."""


class Task(LogitsAxes, Belonging, Choosing, Deciding, Seldom, ABC):
    """Base class of tasks: a data set, and how models are trained, scored and served on it.

        task = optkit.load_task("classification", data="reviews/")
        task.score(task.predict(task.encode("dev", tokenizer), logits))

    `optkit.evaluate` does the latter for a model or an engine.
    """

    head: ClassVar[str]
    """Name of the head, such as "classification", in files and on the server."""
    targets: ClassVar[tuple[str, ...]]
    """Target columns of the training features: numbers, or lists, which a batch pads with `collate.IGNORED`."""
    config: ClassVar[Mapping[str, Any]] = {}
    """Settings of the configuration of models, besides the names of their classes."""
    head_modules: ClassVar[tuple[str, ...]]
    """Name prefixes of the head's tensors, which a pretrained model lacks until it is fine-tuned."""
    served: ClassVar[ServedForm]
    """Served form: conversion of logits to answers in the server and of outputs to answers in the client."""
    metric: str
    """Name of the headline metric, a key of `score`'s result."""
    metrics: tuple[str, ...] = ()
    """Names of the metrics that may be chosen as the headline one."""
    training: ClassVar[Mapping[str, Any]] = {}
    """Default training settings where they differ from those of BERT fine-tuning, fields of `Training`."""
    options: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Choices that this task alone has, by name: the values that each may have, the default first; none for any text. One
    that predictions depend on stands in `TextSettings.more` under its name."""
    labels: tuple[str, ...] = ()
    """Class names in the order of the logits; empty for tasks without classes."""
    text_columns: tuple[str, ...]
    """Text columns of `examples`, in the order of `text_fields`."""

    def __init__(self, name: str, examples: Mapping[Split, Dataset], max_length: int) -> None:
        """Create a task from rows that have been checked.

        Args:
            name: name of the task, as on the command line.
            examples: rows by split.
            max_length: longest feature in tokens.
        """
        self.name, self.max_length, self._examples = name, max_length, examples
        self.unlabelled: tuple[Sequence[str], ...] = ()  # columns of texts without labels, in the order of `text_columns`
        self._told_length = False

    @classmethod
    def chosen(cls, data: DataSettings) -> dict[str, str]:
        """Return the value of each of the task's `options`.

        Raises:
            InputError: the task has no such option, or that no such value.
        """
        for name, value in data.options.items():
            if name not in cls.options or (cls.options[name] and value not in cls.options[name]):
                known = "; ".join(f"{own}={' or '.join(values) or '…'}" for own, values in cls.options.items())
                raise InputError(f"--task-option {name}={value}: expected {known or 'none, as the task has no options'}")
        defaults = {name: values[0] for name, values in cls.options.items() if values}
        return {**defaults, **data.options}

    @classmethod
    @abstractmethod
    def load(cls, name: str, data: DataSettings) -> Task:
        """Read and check the data of a task; see `optkit.tasks.registry.load` for errors."""

    def limit_length(self, tokens: int) -> None:
        """Set the longest feature in tokens, which a model then has to take."""
        self.max_length, self._told_length = tokens, True

    def length(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """Return the longest feature in tokens that both task and tokenizer, which knows the model's limit, accept.

        Raises:
            InputError: a length was set that the model does not take.
        """
        if self._told_length and self.max_length > tokenizer.model_max_length:
            raise InputError(
                f"--max-length {self.max_length}: the model takes {tokenizer.model_max_length} tokens at most; give a "
                "smaller length, or leave it out"
            )
        return min(self.max_length, tokenizer.model_max_length)

    def examples(self, split: Split) -> Dataset:
        """Return the checked rows of a split, not encoded."""
        return self._examples[split]

    def fingerprint(self, splits: Sequence[Split] = SPLITS) -> str:
        """Return the SHA-256 of the rows used of splits; a limit on training rows changes it, groups of dev do not."""
        dev = self._examples["dev"]
        rows = {**self._examples, "dev": dev.select_columns([name for name in dev.column_names if name != GROUP])}
        return fingerprint(*(rows[split] for split in splits))

    def choose_metric(self, name: str) -> None:
        """Make another of the task's metrics the headline one, for intervals, the gate and reports.

        Raises:
            InputError: the task has no such metric.
        """
        if name not in self.metrics:
            expected = ", ".join(self.metrics) or f"{self.metric}, its only one"
            raise InputError(f"--metric {name}: task {self.name!r} has {expected}")
        self.metric = name

    def class_shares(self, split: Split) -> tuple[Sequence[int], Sequence[str]]:
        """Return the class index of everything in a split that has a class, and the names of the classes; empty without."""
        rows = self.examples(split)
        return (rows["label"][:], self.labels) if self.labels and "label" in rows.column_names else ((), ())

    @property
    def metric_in_words(self) -> str:
        """What the headline metric is, for people."""
        return self.metric

    @abstractmethod
    def encode(self, split: Split, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """Encode a split.

        Returns:
            Features with the columns of the tokenizer's `model_input_names`, the `targets`, `example` (index of the row
            that the feature belongs to, -1 for none) and `length` in tokens; where rows can be cut, also `whole_length`,
            uncut.
        """

    @staticmethod
    @abstractmethod
    def auto_class() -> Any:
        """Return the Auto class of transformers for models with this head."""

    @classmethod
    def has_head(cls, config: Any) -> bool:
        """Return whether a model of this configuration, which `auto_class` is for, has this task's head."""
        return True

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the entries on the logits' last axis, for the model's `id2label`."""
        return self.labels

    @property
    def logits_shape(self) -> tuple[int, ...]:
        """Shape of the logits without the batch axis; -1 for the token axis."""
        return tuple(-1 if axis == TOKEN else len(self.class_names) for axis in self.axes[1:])

    @staticmethod
    @abstractmethod
    def logits(output: Any) -> torch.Tensor:
        """Return the logits of a model's output as one tensor with `axes`."""

    @staticmethod
    @abstractmethod
    def loss(output: Any, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the training loss, a scalar computed in float32.

        Args:
            output: output of the model.
            targets: target tensors of the batch by column.
        """

    @abstractmethod
    def predict(self, features: Dataset, logits: Sequence[NDArray[Any]]) -> list[Prediction]:
        """Return one prediction per example of the dev split.

        Args:
            features: encoded dev split.
            logits: one array per feature, with `axes` but the batch.

        Raises:
            GateError: a logit is not finite (see `collate.check_logits`).
        """

    @abstractmethod
    def score(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """Return all metrics of predictions on the dev split by name, in points (0 to 100; Matthews -100 to 100)."""

    @abstractmethod
    def outcomes(self, predictions: Sequence[Prediction]) -> NDArray[Any]:
        """Return what all metrics of the dev split are computed from, [examples] (see `optkit.tasks.outcomes`).

        Where metrics are means over groups of examples, such as queries, [groups]: intervals draw these.

        For a task with one metric that is a mean over examples: that of each example, float64 in points.
        """

    def shown(self, prediction: Prediction) -> str:
        """Return a prediction as text for people; `str` of the served answer gives the same."""
        return str(prediction)

    def shown_as(self, prediction: Prediction, labels: Sequence[str]) -> str:
        """Return `shown` with a model's own names of the classes.

        Args:
            prediction: of the task.
            labels: own names in the order of the task's; empty for the task's.
        """
        shown = self.shown(prediction)
        return dict(zip(self.labels, labels, strict=False)).get(shown, shown)

    def texts(self, split: Split) -> list[tuple[str, ...]]:
        """Return the texts of each row, by which rows that are repeated are found."""
        rows = self.examples(split)
        return list(zip(*(rows[column][:] for column in self.text_columns), strict=True))

    def requests(self, most: int) -> list[tuple[str, ...]]:
        """Return the texts of some requests about rows of the dev split, as `text_fields` names them, in order."""
        return self.texts("dev")[:most]

    def told(self, prediction: Prediction) -> str:
        """Return a prediction as text beside those of other rungs, with what may have changed on the way."""
        return self.shown(prediction)

    @property
    def text_fields(self) -> tuple[str, ...]:
        """Names of a request's texts, in the order in which a client sends them."""
        return self.text_columns

    def text_settings(self, tokenizer: PreTrainedTokenizerBase) -> TextSettings:
        """Return the settings that the server needs to tokenise text and to convert logits to answers."""
        padding = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        return TextSettings(
            head=self.head,
            fields=self.text_fields,
            padding={name: int(padding.get(name, 0)) for name in tokenizer.model_input_names},
            max_length=self.length(tokenizer),
            truncation_side=tokenizer.truncation_side,
            split_special_tokens=bool(tokenizer.split_special_tokens),
            labels=self.labels,
            more={"thresholds": list(self.thresholds)} if self.thresholds else {},
        )

    def check_count(self, predictions: Sequence[Prediction]) -> None:
        """Raise `ValueError` unless there is one prediction per example of the dev split."""
        expected = len(self._examples["dev"])
        if len(predictions) != expected:
            raise ValueError(f"{len(predictions)} predictions for {expected} dev examples; expected one for each")


TaskKind = Task | type[Task]
"""A task, or its class if no data is needed."""
