"""How far two sets of logits of the same features are apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_ROUNDING = 4 * float(np.finfo(np.float32).eps)
"""Differences below it, over the largest logit, are float32's own: all that a model with constant logits has."""


@dataclass(frozen=True)
class Difference:
    """Difference between two sets of logits of the same features, without padding.

    The relative figures are over the reference's mean absolute deviation from its mean: noise over signal, which is the
    same for a model whose logits span 0.1 and for one whose logits span 10.
    """

    mean: float
    largest: float
    relative_mean: float
    relative_largest: float

    def as_dict(self) -> dict[str, float]:
        """Return the figures in JSON types, rounded to four digits."""
        return {name: float(f"{value:.4g}") for name, value in vars(self).items()}


def signal(logits: Sequence[np.ndarray]) -> float:
    """Mean absolute deviation of all logits from their mean."""
    values = _flat(logits)
    return float(np.abs(values - values.mean()).mean())


def difference(found: Sequence[np.ndarray], reference: Sequence[np.ndarray], scale: float | None = None) -> Difference:
    """Compare logits feature by feature.

    Args:
        found: one array per feature, without padding.
        reference: of the same shapes.
        scale: what the relative figures are over; the reference's `signal` if None.

    Raises:
        ValueError: the two have other features or shapes.
    """
    shapes, expected = [[array.shape for array in arrays] for arrays in (found, reference)]
    if shapes != expected:
        odd = next((pair for pair in zip(shapes, expected, strict=False) if pair[0] != pair[1]), None)
        raise ValueError(f"logits of {len(shapes)} features, expected {len(expected)}; first other shapes: {odd}")
    values = _flat(reference)
    apart = np.abs(_flat(found) - values)
    apart[apart <= _ROUNDING * np.abs(values).max(initial=0)] = 0
    over = max(signal(reference) if scale is None else scale, 1e-12)
    mean, largest = float(apart.mean()), float(apart.max())
    return Difference(mean, largest, mean / over, largest / over)


def _flat(logits: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([array.ravel() for array in logits]).astype(np.float64)
