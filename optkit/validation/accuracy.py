"""Accuracy deltas with their uncertainty."""

import numpy as np


def paired_bootstrap(
    candidate: np.ndarray, baseline: np.ndarray, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the mean difference in points, resampling what the two have in common.

    Both were scored on the same examples, so examples are drawn in pairs (Efron and Tibshirani 1993; for NLP, Koehn
    2004). With several training seeds, seeds are drawn too, so that the interval covers their noise.

    Args:
        candidate, baseline: example scores in points (0 to 100), [examples] or [seeds, examples], in the same order.
        resamples: number of bootstrap samples.
        seed: of the draws.

    Returns:
        Lower and upper end, in points.
    """
    difference = np.atleast_2d(np.asarray(candidate, float) - np.asarray(baseline, float))
    seeds, examples = difference.shape
    generator = np.random.default_rng(seed)
    deltas = np.empty(resamples)
    for number in range(resamples):
        drawn = generator.integers(seeds, size=seeds) if seeds > 1 else np.zeros(1, int)
        deltas[number] = difference[drawn].mean(axis=0)[generator.integers(examples, size=examples)].mean()
    low, high = np.percentile(deltas, [2.5, 97.5])
    return float(low), float(high)
