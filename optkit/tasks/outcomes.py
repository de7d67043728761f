"""Outcomes of examples, and the metrics that are computed from them: of all examples, or of resamples of them.

Outcomes are an array [examples], or of groups of them such as queries, of one of five kinds:

* floats: the metric of each example, whose mean is the metric;
* a field for each of several such metrics;
* `CLASSES`: the true and the predicted class, from which metrics of classification are counted, and beside them how many
  classes the task has: F1 of two is another than that of three of which one does not occur;
* `VALUES`: the right and the predicted value, whose correlation is the metric;
* of `counts`: how many of each class an example has, such as entities of a type, how many are predicted, and how many of
  these are right.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from optkit.tasks.correlation import CORRELATIONS

CLASSES = np.dtype([("gold", np.int32), ("predicted", np.int32), ("classes", np.int32)])
VALUES = np.dtype([("gold", np.float64), ("predicted", np.float64)])


class Counts(NamedTuple):
    """Examples by class, each [..., classes]; weighted where examples were drawn several times."""

    right: NDArray[Any]
    """Examples of the class that are predicted right."""
    gold: NDArray[Any]
    """Examples of the class."""
    predicted: NDArray[Any]
    """Examples that are predicted to be of the class."""


def counts(classes: int) -> np.dtype[Any]:
    """Return the kind of outcomes with the fields of `Counts`, each [classes]."""
    return np.dtype([(name, np.int32, (classes,)) for name in Counts._fields])


def accuracy(counts: Counts) -> NDArray[Any]:
    """Return the share of right predictions, [...]; likewise all that follow."""
    return counts.right.sum(-1) / counts.gold.sum(-1)


def precision(counts: Counts) -> NDArray[Any]:
    """Return the precision of the second of two classes, or its mean over several."""
    return _of_class_or_mean(_ratio(counts.right, counts.predicted), counts)


def recall(counts: Counts) -> NDArray[Any]:
    """Return the recall of the second of two classes, or its mean over several."""
    return _of_class_or_mean(_ratio(counts.right, counts.gold), counts)


def f1(counts: Counts) -> NDArray[Any]:
    """Return F1 of the second of two classes, or its mean over several."""
    return _of_class_or_mean(_f1(counts), counts)


def macro_f1(counts: Counts) -> NDArray[Any]:
    """Return the mean F1 of the classes that occur."""
    return _mean(_f1(counts), counts.gold + counts.predicted)


def weighted_f1(counts: Counts) -> NDArray[Any]:
    """Return the mean F1 of the classes, weighted by their examples."""
    return (_f1(counts) * counts.gold).sum(-1) / counts.gold.sum(-1)


def balanced_accuracy(counts: Counts) -> NDArray[Any]:
    """Return the mean recall of the classes that occur in the data."""
    return _mean(_ratio(counts.right, counts.gold), counts.gold)


def matthews(counts: Counts) -> NDArray[Any]:
    """Return Matthews' correlation, for several classes as Gorodkin (2004) has it; 0 if all predictions are alike."""
    total = counts.gold.sum(-1)
    together = counts.right.sum(-1) * total - (counts.gold * counts.predicted).sum(-1)
    spread = [total**2 - (side**2).sum(-1) for side in (counts.gold, counts.predicted)]
    return _ratio(together, np.sqrt(np.maximum(spread[0], 0) * np.maximum(spread[1], 0)))


METRICS: Mapping[str, Callable[[Counts], NDArray[Any]]] = {
    metric.__name__: metric
    for metric in (accuracy, f1, macro_f1, weighted_f1, matthews, precision, recall, balanced_accuracy)
} | {"micro_f1": accuracy}
"""Metrics of classification by name. Where each example has one class, micro F1 is accuracy."""
COUNT_METRICS: Mapping[str, Callable[[Counts], NDArray[Any]]] = {
    "f1": lambda counts: _ratio(2 * counts.right.sum(-1), counts.gold.sum(-1) + counts.predicted.sum(-1)),
    "precision": lambda counts: _ratio(counts.right.sum(-1), counts.predicted.sum(-1)),
    "recall": lambda counts: _ratio(counts.right.sum(-1), counts.gold.sum(-1)),
    "macro_f1": macro_f1,
}
"""Metrics of outcomes of `counts` by name: over all classes together, but for `macro_f1`."""
_OF_ONE_CLASS = ("f1", "precision", "recall")


def example_points(outcomes: NDArray[Any], metric: str) -> NDArray[Any] | None:
    """Return what each example adds to a metric that is a mean, in points; None for one that is not.

    Args:
        outcomes: outcomes [..., examples] of any kind.
        metric: name of the metric.
    """
    names = outcomes.dtype.names
    if names is None:
        return outcomes
    if metric in names:
        return np.asarray(outcomes[metric])
    if outcomes.dtype == CLASSES and METRICS[metric] is accuracy:
        return 100.0 * (outcomes["gold"] == outcomes["predicted"])
    return None


def value(outcomes: NDArray[Any], metric: str) -> float:
    """Return a metric of all examples, in points.

    Args:
        outcomes: outcomes [examples] of any kind.
        metric: name of the metric.
    """
    points = example_points(outcomes, metric)
    if points is not None:
        return float(points.mean())
    return float(of_draws(outcomes, metric)(np.ones((1, outcomes.size)))[0])


def of_draws(outcomes: NDArray[Any], metric: str) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return a function from weights, [draws, examples], to a metric that is no mean, [draws] in points.

    Args:
        outcomes: outcomes [examples], `CLASSES`, `VALUES` or of `counts`.
        metric: name of the metric.
    """
    if outcomes.dtype == VALUES:
        correlation = partial(CORRELATIONS[metric], outcomes["gold"], outcomes["predicted"])
        return lambda weights: 100.0 * correlation(weights)
    if outcomes.dtype.names == Counts._fields:
        rows = np.stack([outcomes[name] for name in Counts._fields], axis=1).astype(np.float32)
        return lambda weights: 100.0 * COUNT_METRICS[metric](counted(rows, weights))
    rows = class_rows(outcomes)
    return lambda weights: 100.0 * METRICS[metric](counted(rows, weights))


def class_rows(outcomes: NDArray[Any]) -> NDArray[Any]:
    """Return what each example adds to `Counts`, float32 [examples, 3, classes]."""
    names = np.arange(outcomes["classes"].max())
    gold, predicted = (outcomes[side][:, None] == names for side in ("gold", "predicted"))
    return np.stack([gold & predicted, gold, predicted], axis=1).astype(np.float32)


def counted(rows: NDArray[Any], weights: NDArray[Any]) -> Counts:
    """Return the counts of weighted examples.

    Args:
        rows: result of `class_rows`.
        weights: how often each example is drawn, [..., examples].
    """
    sums = weights.astype(np.float32) @ rows.reshape(len(rows), -1)
    right, gold, predicted = np.moveaxis(sums.reshape(*sums.shape[:-1], *rows.shape[1:]).astype(np.float64), -2, 0)
    return Counts(right, gold, predicted)


def in_words(metric: str, classes: Sequence[str]) -> str:
    """Return what a metric of classification is, such as "f1 of the class 'spam'".

    Args:
        metric: name of the metric.
        classes: names of the task's classes.
    """
    if metric not in _OF_ONE_CLASS:
        return metric
    return (
        f"{metric} of the class {classes[1]!r}" if len(classes) == 2 else f"{metric}, the mean over {len(classes)} classes"
    )


def _f1(counts: Counts) -> NDArray[Any]:
    return _ratio(2 * counts.right, counts.gold + counts.predicted)


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[Any]:
    """Return part / whole, 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros(np.shape(part)), where=whole != 0)


def _mean(values: NDArray[Any], occurs: NDArray[Any]) -> NDArray[Any]:
    present = occurs > 0
    return _ratio((values * present).sum(-1), present.sum(-1))


def _of_class_or_mean(values: NDArray[Any], counts: Counts) -> NDArray[Any]:
    return values[..., 1] if values.shape[-1] == 2 else _mean(values, counts.gold + counts.predicted)
