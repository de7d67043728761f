"""How far logits may move between two rungs, relative to their mean absolute deviation."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """Allowed change of logits relative to their mean absolute deviation; `docs/validation.md` gives the reasons."""

    mean: float
    largest: float


SERVED = Tolerance(1e-4, 1e-3)
"""Tolerance of the rung `server`: the same engine on the same batches."""


def exceeds(values: Mapping[str, float], allowed: Tolerance) -> bool:
    """Whether logits moved more than they may; a difference that is not a number does."""
    return not (values["relative_mean"] <= allowed.mean and values["relative_largest"] <= allowed.largest)
