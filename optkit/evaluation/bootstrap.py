"""Bootstrap intervals of deltas."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optkit.tasks.outcomes import example_points, of_draws

_CHUNK = 200  # resamples at a time: little memory, and still no loop to speak of
Outcomes = NDArray[Any]


Groups = NDArray[np.int64] | None
"""Number of the group of each example, from 0 without gaps; None where each is drawn by itself."""


def paired_bootstrap(
    candidate: Outcomes, baseline: Outcomes, metric: str, groups: Groups = None, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of a metric's difference in points, resampling what the two have in common.

    Both were scored on the same examples, so examples are drawn in pairs (Efron and Tibshirani 1993; for NLP, Koehn
    2004). Examples that belong together are drawn together (Field and Welsh 2007), and with several training seeds, seeds
    are drawn too, so that the interval covers their noise.

    Args:
        candidate, baseline: outcomes [examples] or [seeds, examples], in the same order (see `optkit.tasks.outcomes`).
        metric: name of the metric, which is computed anew from each resample where it is no mean.
        groups: of the examples.
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
        mean = _means if groups is None else partial(_means_of_groups, groups)
        deltas = np.concatenate([mean(difference, count, generator) for count in parts])
    else:
        sides = np.atleast_2d(candidate), np.atleast_2d(baseline)
        deltas = np.concatenate(list(_counted(*sides, metric, groups, parts, generator)))
    low, high = np.percentile(deltas, [2.5, 97.5])
    return float(low), float(high)


def _counted(
    candidate: Outcomes, baseline: Outcomes, metric: str, groups: Groups, parts: list[int], generator: np.random.Generator
) -> Iterator[NDArray[Any]]:
    """Differences of a metric that is counted: examples that are alike are drawn together, as a multinomial."""
    seeds, kinds = len(candidate), np.concatenate([candidate, baseline]).T  # [examples, 2 · seeds]
    if groups is None:
        kinds, counts = np.unique(kinds, axis=0, return_counts=True)
    metrics = [of_draws(kinds[:, side], metric) for side in range(2 * seeds)]
    for count in parts:
        if groups is None:
            weights = generator.multinomial(counts.sum(), counts / counts.sum(), size=count)
        else:
            weights = _times_drawn(groups.max() + 1, count, generator)[:, groups]
        values = np.stack([one(weights) for one in metrics], axis=1)  # [count, 2 · seeds]
        yield (_drawn(seeds, count, generator) * (values[:, :seeds] - values[:, seeds:])).sum(axis=1)


def _means(difference: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """`count` resampled means of [seeds, examples]: seeds drawn, then examples of what they have in the mean."""
    seeds, examples = difference.shape
    weights = _drawn(seeds, count, generator)
    places = generator.integers(examples, size=(count, examples))
    return np.take_along_axis(weights @ difference, places, axis=1).mean(axis=1)


def _means_of_groups(
    groups: NDArray[np.int64], difference: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    """The same with groups drawn, whose sizes differ, so that those of the resamples do."""
    weights = _drawn(len(difference), count, generator)
    times = _times_drawn(groups.max() + 1, count, generator)
    sums = np.stack([np.bincount(groups, seed) for seed in difference])  # [seeds, groups]
    means: np.ndarray = ((weights @ sums) * times).sum(axis=1) / (times @ np.bincount(groups))
    return means


def _times_drawn(groups: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """How often each group is drawn in `count` draws of as many groups as there are, [count, groups]."""
    drawn = generator.integers(groups, size=(count, groups)) + groups * np.arange(count)[:, None]
    return np.bincount(drawn.ravel(), minlength=count * groups).reshape(count, groups)


def _drawn(seeds: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """Share of each seed in `count` draws of as many seeds as there are, [count, seeds]."""
    drawn = generator.integers(seeds, size=(count, seeds))
    return (drawn[..., None] == np.arange(seeds)).mean(axis=1)
