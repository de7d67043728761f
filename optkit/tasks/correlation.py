"""Correlations of predicted values with right ones, of all examples or of resamples of them."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def pearson(gold: Values, predicted: Values, weights: Values) -> Values:
    """Return Pearson's correlation of weighted examples, [draws]; 0 where one side is constant.

    Args:
        gold: right values, [examples] or [draws, examples].
        predicted: predicted values, likewise.
        weights: how often each example is drawn, [draws, examples].
    """
    total = weights.sum(1)
    ours, theirs = (side - ((weights * side).sum(1) / total)[:, None] for side in (gold, predicted))
    together = (weights * ours * theirs).sum(1)
    spread = np.sqrt((weights * ours**2).sum(1) * (weights * theirs**2).sum(1))
    return np.divide(together, spread, out=np.zeros(len(weights)), where=spread > 1e-12 * total)


def spearman(gold: Values, predicted: Values, weights: Values) -> Values:
    """Return Spearman's rank correlation of weighted examples, [draws]; equal values share the mean of their ranks.

    Args:
        gold: right values, [examples].
        predicted: predicted values, [examples].
        weights: how often each example is drawn, [draws, examples].
    """
    return pearson(_ranks(gold, weights), _ranks(predicted, weights), weights)


CORRELATIONS: Mapping[str, Callable[[Values, Values, Values], Values]] = {"spearman": spearman, "pearson": pearson}
"""Correlations by name."""


def _ranks(values: Values, weights: Values) -> Values:
    """Return each example's rank among the drawn ones, [draws, examples]; of equal ones the mean."""
    order = np.argsort(values, kind="stable")
    _, starts, group = np.unique(values[order], return_index=True, return_inverse=True)
    counts = np.add.reduceat(weights[:, order].astype(float), starts, axis=1)
    ranks = np.empty(weights.shape)
    ranks[:, order] = (np.cumsum(counts, axis=1) - (counts - 1) / 2)[:, group]
    return ranks
