"""What few tasks do otherwise than the rest, with what the rest does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from optkit.tasks.degenerate import Doubt

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from optkit.tasks.base import OwnModel


class Seldom:
    """Base class of tasks for what most of them leave as it is."""

    grouped_by: ClassVar[str | None] = None
    """Target column of groups, such as queries: batches of the training have several features of each."""
    scored_units: str = "examples"
    """What metrics are means over, and intervals draw, in words."""
    labelled: bool = True
    """Whether the training split says what is right; without that, models learn from teachers alone."""

    learns_from_texts: ClassVar[bool] = False
    """Whether a teacher's answers to texts alone teach the task."""
    library_classes: ClassVar[Mapping[str, str]] = {}
    """The classes of other libraries that take models of the task, by the flavour of their folder."""

    def adopt(self, folder: Path, config: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        """Take from a model's folder what the task needs besides its usual files, changing configuration and tokenizer.

        Args:
            folder: the model's.
            config: its configuration.
            tokenizer: its tokenizer.

        Raises:
            InputError: the folder says something that cannot be done.
        """

    def check_head(self, model: PreTrainedModel) -> None:
        """Check a model in memory that has the task's head by its class and its number of classes.

        Raises:
            InputError: the head is otherwise another than the task's.
        """

    def library_files(self, checkpoint: Path, tokenizer: PreTrainedTokenizerBase) -> Mapping[str, Any]:
        """Return the content of the JSON files, by path, by which a library takes a model's graph.

        Args:
            checkpoint: folder of the model, with its `config.json`.
            tokenizer: its tokenizer.
        """
        return {}

    def kept(self, predictions: Sequence[Any]) -> Mapping[str, NDArray[Any]]:
        """Return what `beside` compares with the baseline's, as arrays to be kept with the scores; nothing by default."""
        return {}

    def beside(self, own: Mapping[str, NDArray[Any]], baseline: Mapping[str, NDArray[Any]]) -> dict[str, float]:
        """Return further figures of a model beside its FP32 baseline by name, from what was `kept` of both."""
        return {}

    def shape_of_logits(self, checkpoint: Path) -> tuple[int, ...] | None:
        """Return the shape of a model's logits without the batch, where it depends on the model; None for `logits_shape`.

        Args:
            checkpoint: folder of the model, with its `config.json`.
        """
        return None

    @classmethod
    def teaching_loss(
        cls, student: torch.Tensor, teacher: torch.Tensor, targets: Mapping[str, torch.Tensor]
    ) -> torch.Tensor | None:
        """Return the task's own distance from a teacher's logits, a scalar; None for that of distributions, or of values.

        Args:
            student, teacher: logits with `axes`.
            targets: target tensors of the batch by column.
        """
        return None

    @classmethod
    def mean_of_teachers(cls, answers: torch.Tensor) -> torch.Tensor:
        """Return what several teachers teach together: by default the mean of their logits, before any softmax or sigmoid.

        Probabilities are not averaged: those of the mean are the teachers' geometric mean, made to sum to 1. Of tasks
        without probabilities, the values themselves are averaged.

        Args:
            answers: float32 logits [teachers, …], with `axes` after the first.
        """
        return answers.mean(0)

    @classmethod
    def dimensions(cls, config: Any) -> int | None:
        """Return how many numbers a model answers with, where that depends on the model; None where all have as many.

        Args:
            config: the model's configuration.
        """
        return None

    def weakness(self, features: Dataset, logits: Sequence[NDArray[Any]]) -> str | None:
        """Return why a model would be a bad teacher, such as "is right on …"; None if it is good enough.

        Args:
            features: encoded training split.
            logits: the model's logits, one array per feature.
        """
        return None

    def degenerate(self, predictions: Sequence[Any]) -> Doubt | None:
        """Return why predictions on the dev split are no better than knowing nothing; None if they are, or nothing is known.

        The gate judges every model by it, the baseline too.
        """
        return None

    def own_model(self) -> OwnModel | None:
        """Return the task's own model, trained unless another is given; None to start from a pretrained one."""
        return None

    def readable(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row of `examples` for display, such as with class names for indices."""
        return dict(row)
