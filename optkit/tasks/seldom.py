"""What few tasks do otherwise than the rest, with what the rest does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


class Seldom:
    """Base class of tasks for what most of them leave as it is."""

    labelled: bool = True
    """Whether the training split says what is right; without that, models learn from teachers alone."""
    together: ClassVar[bool] = False
    """Whether the features of an example are trained on in one batch, as the loss compares them."""

    def adopt(self, folder: Path, config: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        """Take from a model's folder what the task needs besides its usual files, changing configuration and tokenizer.

        Args:
            folder: the model's.
            config: its configuration.
            tokenizer: its tokenizer.

        Raises:
            InputError: the folder says something that cannot be done.
        """

    @classmethod
    def imitation(cls, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor | None:
        """Return the loss of a student that follows a teacher's logits; None for the usual one of `optkit.training.losses`.

        Args:
            student: logits with `axes`.
            teacher: likewise, on the same batch.
        """
        return None

    def kept(self, predictions: Sequence[Any]) -> Mapping[str, NDArray[Any]]:
        """Return what `beside` compares with the baseline's, as arrays to be kept with the scores; nothing by default."""
        return {}

    def beside(self, own: Mapping[str, NDArray[Any]], baseline: Mapping[str, NDArray[Any]]) -> dict[str, float]:
        """Return further figures of a model beside its FP32 baseline by name, from what was `kept` of both."""
        return {}
