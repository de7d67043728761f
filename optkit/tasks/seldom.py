"""What few tasks do otherwise than the rest, with what the rest does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Seldom:
    """Base class of tasks for what most of them leave as it is."""

    labelled: bool = True
    """Whether the training split says what is right; without that, models learn from teachers alone."""

    def adopt(self, folder: Path, config: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        """Take from a model's folder what the task needs besides its usual files, changing configuration and tokenizer.

        Args:
            folder: the model's.
            config: its configuration.
            tokenizer: its tokenizer.

        Raises:
            InputError: the folder says something that cannot be done.
        """

    def kept(self, predictions: Sequence[Any]) -> Mapping[str, NDArray[Any]]:
        """Return what `beside` compares with the baseline's, as arrays to be kept with the scores; nothing by default."""
        return {}

    def beside(self, own: Mapping[str, NDArray[Any]], baseline: Mapping[str, NDArray[Any]]) -> dict[str, float]:
        """Return further figures of a model beside its FP32 baseline by name, from what was `kept` of both."""
        return {}
