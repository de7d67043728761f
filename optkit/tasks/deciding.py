"""Thresholds of a model's decisions: fitted on training examples, kept with the model, used wherever its logits are read."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

from numpy.typing import NDArray

if TYPE_CHECKING:
    from datasets import Dataset

Decisions = Callable[[NDArray[Any], NDArray[Any] | None], NDArray[Any]]
"""Function from logits and attention mask to decisions, such as `LogitsAxes.decisions`."""


class Deciding:
    """Base class of tasks for models that decide by thresholds of their own.

    `fit_thresholds` finds them after each training, `thresholds.json` in a checkpoint and beside its engines keeps them, and
    `deciding` gives the task that predicts, counts decisions and is served by them.
    """

    thresholds: tuple[float, ...] = ()
    """Thresholds of the model whose logits are read, in the logits' unit; empty for the task's usual ones."""
    fits_thresholds: bool = False
    """Whether models of the task have thresholds."""

    def fit_thresholds(self, features: Dataset, logits: Sequence[NDArray[Any]]) -> tuple[float, ...]:
        """Return the thresholds that suit a model best on training examples.

        Args:
            features: of training examples, each with all of its features.
            logits: the model's, one array per feature.
        """
        return ()

    def deciding(self, thresholds: Sequence[float]) -> Self:
        """Return a copy of the task that decides by a model's thresholds."""
        found = copy.copy(self)
        found.thresholds = tuple(thresholds)
        return found

    @classmethod
    def decider(cls, thresholds: Sequence[float]) -> Decisions:
        """Return the function that gives the decisions of a model with such thresholds."""
        decisions: Decisions = cls.decisions  # type: ignore[attr-defined]
        return decisions
