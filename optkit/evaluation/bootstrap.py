"""Bootstrap intervals of accuracy deltas."""

import numpy as np

_CHUNK = 200  # resamples at a time: little memory, and still no loop to speak of


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
    generator = np.random.default_rng(seed)
    parts = [min(_CHUNK, resamples - start) for start in range(0, resamples, _CHUNK)]
    deltas = np.concatenate([_means(difference, count, generator) for count in parts])
    low, high = np.percentile(deltas, [2.5, 97.5])
    return float(low), float(high)


def _means(difference: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """`count` resampled means of [seeds, examples]: seeds drawn, then examples of what they have in the mean."""
    seeds, examples = difference.shape
    drawn = generator.integers(seeds, size=(count, seeds))
    weights = (drawn[..., None] == np.arange(seeds)).mean(axis=1)  # [count, seeds]
    places = generator.integers(examples, size=(count, examples))
    return np.take_along_axis(weights @ difference, places, axis=1).mean(axis=1)
