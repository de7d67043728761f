"""What few tasks do otherwise than the rest, with what the rest does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from optkit.tasks.degenerate import Doubt

if TYPE_CHECKING:
    import torch
    from datasets import Dataset


class Seldom:
    """Base class of tasks for what most of them leave as it is."""

    grouped_by: ClassVar[str | None] = None
    """Target column of groups, such as queries: batches of the training have several features of each."""
    scored_units: ClassVar[str] = "examples"
    """What metrics are means over, and intervals draw, in words."""

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
