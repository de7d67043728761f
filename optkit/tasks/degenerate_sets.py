"""What speaks against a model that gives any number of labels: it is no better than a constant set of them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optkit.tasks.degenerate import HEADROOM, MORE, Doubt, constant

_DRAWS, _TOGETHER = 1000, 50
"""Resamples of a bootstrap, and how many are drawn at a time."""
_SHOWN = 4
"""Labels that a message names."""


def of_sets(gold: NDArray[np.bool_], predicted: NDArray[np.bool_], labels: Sequence[str]) -> Doubt | None:
    """Return what speaks against predicted sets of labels; None where nothing does.

    Their micro F1 is compared with that of the best constant set, by the paired bootstrap over the examples.

    Args:
        gold: right labels, [examples, labels].
        predicted: predicted labels, [examples, labels].
        labels: their names.
    """
    if (gold == gold[0]).all():
        names = _set_of(gold[0], labels)
        return Doubt("undecided", f"is scored on examples that all have {names}, which a constant answer gets right as well")
    if (predicted == predicted[0]).all():
        return constant(_set_of(predicted[0], labels), (gold == predicted).all(1))
    always = _best_set(gold)
    found, reference = (float(_micro_f1(gold, side, np.ones((1, len(gold))))[0]) for side in (predicted, always))
    gains = [_micro_f1(gold, predicted, draws) - _micro_f1(gold, always, draws) for draws in _draws(len(gold))]
    low, high = np.percentile(np.concatenate(gains), [2.5, 97.5])
    if low > 0:
        return None
    than = f"always answering {_set_of(always[0], labels)} would have {100 * reference:.1f}"
    said = f"has a micro F1 of {100 * found:.1f} on the {len(gold):,} examples; {than}"
    return Doubt("fail", said) if high < HEADROOM * (1 - reference) else Doubt("undecided", said + MORE)


def _best_set(gold: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the constant set of labels with the highest micro F1, [examples, labels]: the so many most frequent."""
    counts = gold.sum(0)
    order = np.argsort(-counts, kind="stable")
    sizes = np.arange(1, len(order) + 1)
    best = (2 * np.cumsum(counts[order]) / (counts.sum() + sizes * len(gold))).argmax()
    found: NDArray[np.bool_] = np.broadcast_to(np.isin(np.arange(len(order)), order[: best + 1]), gold.shape)
    return found


def _micro_f1(gold: NDArray[np.bool_], predicted: NDArray[np.bool_], weights: NDArray[Any]) -> NDArray[np.float64]:
    """Return the micro F1 of weighted examples, [draws], from 0 to 1."""
    right, all_of_them = (gold & predicted).sum(1), gold.sum(1) + predicted.sum(1)
    found: NDArray[np.float64] = 2 * (weights @ right) / np.maximum(1, weights @ all_of_them)
    return found


def _draws(count: int) -> Iterator[NDArray[np.int64]]:
    """Yield how often each example is drawn in resamples, [draws, examples], a few at a time."""
    random = np.random.default_rng(0)
    for _ in range(0, _DRAWS, _TOGETHER):
        yield random.multinomial(count, np.full(count, 1 / count), size=_TOGETHER)


def _set_of(chosen: NDArray[np.bool_], labels: Sequence[str]) -> str:
    """Return a set of labels as text for people."""
    names = [repr(label) for label, own in zip(labels, chosen, strict=True) if own]
    return ", ".join(names[:_SHOWN]) + ", …" * (len(names) > _SHOWN) if names else "no label"
