"""Bootstrap intervals of deltas."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optkit.tasks.outcomes import example_points, of_draws

_CHUNK = 200  # resamples at a time: little memory, and still no loop to speak of
Outcomes = NDArray[Any]


def paired_bootstrap(
    candidate: Outcomes, baseline: Outcomes, metric: str, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of a metric's difference in points, resampling what the two have in common.

    Both were scored on the same examples, so examples are drawn in pairs (Efron and Tibshirani 1993; for NLP, Koehn
    2004). With several training seeds, seeds are drawn too, so that the interval covers their noise.

    Args:
        candidate, baseline: outcomes [examples] or [seeds, examples], in the same order (see `optkit.tasks.outcomes`).
        metric: name of the metric, which is computed anew from each resample where it is no mean.
        resamples: number of bootstrap samples.
        seed: of the draws.

    Returns:
        Lower and upper end, in points.
    """
    generator = np.random.default_rng(seed)
    parts = [min(_CHUNK, resamples - start) for start in range(0, resamples, _CHUNK)]
    own, reference = (example_points(outcomes, metric) for outcomes in (candidate, baseline))
    if own is not None and reference is not None:
        difference = np.atleast_2d(np.asarray(own, float) - np.asarray(reference, float))
        deltas = np.concatenate([_means(difference, count, generator) for count in parts])
    else:
        deltas = np.concatenate(list(_counted(np.atleast_2d(candidate), np.atleast_2d(baseline), metric, parts, generator)))
    low, high = np.percentile(deltas, [2.5, 97.5])
    return float(low), float(high)


def _counted(
    candidate: Outcomes, baseline: Outcomes, metric: str, parts: list[int], generator: np.random.Generator
) -> Iterator[NDArray[Any]]:
    """Differences of a metric that is counted: examples that are alike are drawn together, as a multinomial."""
    seeds = len(candidate)
    kinds, counts = np.unique(np.concatenate([candidate, baseline]).T, axis=0, return_counts=True)  # [kinds, 2 · seeds]
    metrics = [of_draws(kinds[:, side], metric) for side in range(2 * seeds)]
    for count in parts:
        weights = generator.multinomial(counts.sum(), counts / counts.sum(), size=count)
        values = np.stack([one(weights) for one in metrics], axis=1)  # [count, 2 · seeds]
        yield (_drawn(seeds, count, generator) * (values[:, :seeds] - values[:, seeds:])).sum(axis=1)


def _means(difference: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """`count` resampled means of [seeds, examples]: seeds drawn, then examples of what they have in the mean."""
    seeds, examples = difference.shape
    weights = _drawn(seeds, count, generator)
    places = generator.integers(examples, size=(count, examples))
    return np.take_along_axis(weights @ difference, places, axis=1).mean(axis=1)


def _drawn(seeds: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """Share of each seed in `count` draws of as many seeds as there are, [count, seeds]."""
    drawn = generator.integers(seeds, size=(count, seeds))
    return (drawn[..., None] == np.arange(seeds)).mean(axis=1)
