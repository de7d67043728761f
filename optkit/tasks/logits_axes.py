"""Axes of a task's logits: which of them is padded, and which one a decision is made over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

TOKEN = "token"
"""Name of the logits' axis with an entry for each token."""


class LogitsAxes:
    """Base class of tasks for what follows from the axes of their logits."""

    axes: ClassVar[tuple[str, ...]]
    """Axes of the logits: ("batch", "class"), or ("batch", "token", "end")."""
    choice: ClassVar[str | None]
    """Axis of softmax and argmax, for decisions and distillation; None for a task without discrete choices."""
    readable_logits: ClassVar[bool] = True
    """Whether a feature's logits tell people something, unlike those of tokens or of a vector's dimensions."""

    @classmethod
    def per_token(cls) -> bool:
        """Return whether the logits have an entry for each token."""
        return TOKEN in cls.axes

    @classmethod
    def unpadded(cls, logits: Any, mask: Any) -> Any:
        """Return the logits of real tokens, [tokens, …]; logits without a token axis are returned unchanged.

        Args:
            logits: logits with `axes`, a NumPy array or a PyTorch tensor.
            mask: attention mask [batch, sequence], 1 for tokens and 0 for padding; None without padding.
        """
        return logits[mask > 0] if mask is not None and cls.per_token() else logits

    @classmethod
    def distributions(cls, logits: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor | None:
        """Return the logits as rows [distributions, choices], to take softmax over the last axis; None without a `choice`.

        Args:
            logits: logits with `axes`.
            mask: attention mask [batch, sequence], 1 for tokens and 0 for padding; None without padding.
        """
        if cls.choice is None:
            return None
        if cls.choice != TOKEN:
            logits = cls.unpadded(logits, mask)
        return logits.movedim(cls._choice_axis(), -1).flatten(0, -2)

    @classmethod
    def decisions(cls, logits: NDArray[Any], mask: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return the index of the largest logit in each distribution, to count decisions that flip.

        Args:
            logits: logits with `axes`.
            mask: attention mask [batch, sequence], 1 for tokens and 0 for padding; None without padding.

        Returns:
            Indices [decisions]; empty without a `choice`.
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
        """Return the negative index of the axis `choice`."""
        return cls.axes.index(str(cls.choice)) - len(cls.axes)
