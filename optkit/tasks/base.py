"""What a task is: a data set, and everything that depends on what a model is asked there.

A task is one file with a class that follows from `Task` and one that follows from `optkit.tasks.served.ServedForm`, and a
name in `optkit.tasks.registry`; nothing else knows of it. Such a file also runs inside the server's processes: it imports
torch, transformers and datasets where it uses them.

Words used by every task:

* *example*: one row of the user's data, for which one prediction is made;
* *feature*: one encoded input of the model. A long passage gives several features for one example;
* *feed*: a batch of features, `{name: int64 array [batch, sequence]}`, what the graph, the engines and the server take;
* *logits*: what the model answers, of the task's `axes`, the batch first. The axis "token" is padded as the feed is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from optkit.tasks.data.tables import fingerprint
from optkit.tasks.served import ServedForm, TextSettings

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Split = Literal["train", "dev"]
Feed = Mapping[str, NDArray[Any]]
Prediction = Any  # a class index (classification) or an answer's text (question answering)
Decisions = Callable[[NDArray[Any], NDArray[Any] | None], NDArray[Any]]
"""See `Task.decisions`."""

TOKEN = "token"
"""The axis with an entry for each token."""


class OwnModel(NamedTuple):
    """A model that a task brings along, to be trained from random weights."""

    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    initialise: Callable[[PreTrainedModel], None]
    """Changes its random weights in place."""
    training: Mapping[str, Any]
    """Fields of `stages.Training` that suit it."""


class Task(ABC):
    """One data set with what it takes to train on it, to score a model by it, and to serve one."""

    head: ClassVar[str]
    """The kind of answer, as files and the server name it."""
    axes: ClassVar[tuple[str, ...]]
    """Axes of the logits: ("batch", "class"), or ("batch", "token", "end")."""
    choice: ClassVar[str | None]
    """The axis along which softmax makes a distribution, of which the largest is taken; None where nothing is chosen."""
    targets: ClassVar[tuple[str, ...]]
    """Columns of the training features with what is right: numbers, or lists, which a batch pads with `collate.IGNORED`."""
    head_modules: ClassVar[tuple[str, ...]]
    """How the names of the head's own tensors begin: those of a model that is not fine-tuned yet."""
    served: ClassVar[ServedForm]
    """From text to the answer, in the server and at its client."""
    metric: ClassVar[str]
    """The headline metric, a key of what `score` returns."""
    training: ClassVar[Mapping[str, Any]] = {}
    """Fields of `stages.Training` that suit it better than those of BERT's fine-tuning."""
    labels: tuple[str, ...] = ()
    """Class names in the order of the logits; empty where there are no classes."""
    text_columns: tuple[str, ...]
    """The columns of `examples` with the texts, in the order of `text_fields`."""

    def __init__(self, name: str, examples: Mapping[Split, Dataset], max_length: int) -> None:
        """Takes checked rows.

        Args:
            name: as on the command line.
            examples: the rows of both splits.
            max_length: longest feature in tokens.
        """
        self.name, self.max_length, self._examples = name, max_length, examples

    @classmethod
    @abstractmethod
    def load(cls, name: str, data: Path | None, limit_train: int | None) -> Task:
        """The task of one of its names, read and checked; see `optkit.tasks.registry.load`."""

    def examples(self, split: Split) -> Dataset:
        """The raw rows of a split, checked."""
        return self._examples[split]

    def fingerprint(self) -> str:
        """SHA-256 of both splits, the limit on training rows included."""
        return fingerprint(self._examples["train"], self._examples["dev"])

    @abstractmethod
    def encode(self, split: Split, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """Features with the tokenizer's `model_input_names`, the `targets`, `example` (the row the feature belongs to) and
        `length` in tokens."""

    def own_model(self) -> OwnModel | None:
        """What is trained where no other model is asked for; None for a pretrained one."""
        return None

    @staticmethod
    @abstractmethod
    def auto_class() -> Any:
        """The Auto class of transformers that makes models with the head."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the last axis of the logits, for the model's `id2label`."""
        return self.labels

    @property
    def logits_shape(self) -> tuple[int, ...]:
        """Shape of the logits without the batch; -1 for tokens."""
        return tuple(-1 if axis == TOKEN else len(self.class_names) for axis in self.axes[1:])

    @classmethod
    def per_token(cls) -> bool:
        """Whether the logits have an entry for each token."""
        return TOKEN in cls.axes

    @staticmethod
    @abstractmethod
    def logits(output: Any) -> torch.Tensor:
        """One tensor of `axes` from what the model gives."""

    @staticmethod
    @abstractmethod
    def loss(output: Any, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What training minimises, computed in float32.

        Args:
            output: what the model gives.
            targets: of the batch.
        """

    @classmethod
    def unpadded(cls, logits: Any, mask: Any) -> Any:
        """Logits without those of padding, [tokens, …]; as they are where they have no entry for each token.

        Args:
            logits: of `axes`, of NumPy or PyTorch.
            mask: [batch, sequence], 1 for tokens and 0 for padding; None where nothing is padded.
        """
        return logits[mask > 0] if mask is not None and cls.per_token() else logits

    @classmethod
    def distributions(cls, logits: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor | None:
        """Logits as rows [distributions, choices], over which softmax makes a distribution each; None without a `choice`.

        Args:
            logits: of `axes`.
            mask: [batch, sequence], 1 for tokens and 0 for padding; None where nothing is padded.
        """
        if cls.choice is None:
            return None
        if cls.choice != TOKEN:
            logits = cls.unpadded(logits, mask)
        return logits.movedim(cls._choice_axis(), -1).flatten(0, -2)

    @classmethod
    def decisions(cls, logits: NDArray[Any], mask: NDArray[Any] | None = None) -> NDArray[Any]:
        """What predictions depend on, to count those that flip: the index of the largest logit in each distribution.

        Args:
            logits: of `axes`.
            mask: [batch, sequence], 1 for tokens and 0 for padding; None where nothing is padded.

        Returns:
            [decisions], none without a `choice`.
        """
        if cls.choice is None:
            return np.empty(0)
        if cls.choice != TOKEN:
            logits = cls.unpadded(logits, mask)
        elif mask is not None:
            logits = np.where(np.expand_dims(mask, tuple(range(2, logits.ndim))) > 0, logits, -np.inf)
        chosen: NDArray[np.int64] = logits.argmax(axis=cls._choice_axis()).ravel()
        return chosen

    @classmethod
    def _choice_axis(cls) -> int:
        """Counted from the last."""
        return cls.axes.index(str(cls.choice)) - len(cls.axes)

    @abstractmethod
    def predict(self, features: Dataset, logits: Sequence[NDArray[Any]]) -> list[Prediction]:
        """One prediction per example of the dev split from one array per feature, of `axes` without the batch.

        Raises:
            GateError: a logit is not finite (see `collate.check_logits`).
        """

    @abstractmethod
    def score(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """Every metric of the task on the dev split, in points (0 to 100; Matthews -100 to 100)."""

    @abstractmethod
    def example_scores(self, predictions: Sequence[Prediction]) -> NDArray[Any]:
        """The headline metric example by example, float64 [examples], whose mean is the score: what bootstraps need."""

    def weakness(self, features: Dataset, logits: Sequence[NDArray[Any]]) -> str | None:
        """Why a model would be a bad teacher, by its logits on training features, as "is right on …"; None if it is not."""
        return None

    def shown(self, prediction: Prediction) -> str:
        """A prediction as people read it, and as `str` makes it of the served answer."""
        return str(prediction)

    def readable(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row of `examples` as people read it."""
        return dict(row)

    @property
    def text_fields(self) -> tuple[str, ...]:
        """What a client calls the texts, in the order in which it sends them."""
        return self.text_columns

    def text_settings(self, tokenizer: PreTrainedTokenizerBase) -> TextSettings:
        """The way from text to tokens and from logits to answers, as a server needs it."""
        padding = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        return TextSettings(
            head=self.head,
            fields=self.text_fields,
            padding={name: int(padding.get(name, 0)) for name in tokenizer.model_input_names},
            max_length=min(self.max_length, tokenizer.model_max_length),
            truncation_side=tokenizer.truncation_side,
            labels=self.labels,
        )

    def check_count(self, predictions: Sequence[Prediction]) -> None:
        """Raises `ValueError` unless there is a prediction for each dev example."""
        expected = len(self._examples["dev"])
        if len(predictions) != expected:
            raise ValueError(f"{len(predictions)} predictions for {expected} dev examples; expected one for each")


TaskKind = Task | type[Task]
"""A task, or its class where no data is needed."""
