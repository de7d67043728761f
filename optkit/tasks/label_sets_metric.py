"""Sets of labels: how well they are ranked, and the thresholds that choose them best."""

import numpy as np
from numpy.typing import NDArray


def ranking_precision(logits: NDArray[np.floating], gold: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the label ranking average precision of each example, [examples], from 0 to 1 (Schapire and Singer 2000).

    For each right label the share of right ones among those that rank at least as high, in the mean; 1 where an example has
    all of the labels or none, as scikit-learn has it.

    Args:
        logits: [examples, labels].
        gold: right labels, [examples, labels].
    """
    from scipy.stats import rankdata

    found = np.ones(len(gold))
    for example, (values, right) in enumerate(zip(logits, gold, strict=True)):
        if right.any() and not right.all():
            ranks = rankdata(-values, "max")[right]
            found[example] = (rankdata(-values[right], "max") / ranks).mean()
    return found


def best_thresholds(logits: NDArray[np.floating], gold: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the threshold of each label, [labels], that together give the highest micro F1.

    F1 is 2 · right / (gold + predicted), a ratio of sums over the labels: at its maximum F, each label's cut maximises
    2 · right - F · predicted by itself (Dinkelbach 1967). Thresholds lie halfway between the logits on both sides.

    Args:
        logits: [examples, labels].
        gold: right labels, [examples, labels].
    """
    labels = np.arange(gold.shape[1])
    order = np.argsort(-logits, axis=0, kind="stable")
    values = np.take_along_axis(logits, order, axis=0).astype(np.float64)
    right = np.cumsum(np.take_along_axis(gold, order, axis=0), axis=0)
    right = np.concatenate([np.zeros((1, len(labels))), right])  # [cuts, labels], of the so many highest
    predicted = np.arange(len(right))[:, None]
    values = np.concatenate([values[:1] + 2, values, values[-1:] - 2])
    possible = values[:-1] > values[1:]  # equal logits are on the same side
    best, f1 = -1.0, 0.0
    while f1 > best:
        best = f1
        cuts = np.where(possible, 2 * right - best * predicted, -np.inf).argmax(axis=0)
        f1 = 2 * right[cuts, labels].sum() / max(1, gold.sum() + cuts.sum())
    halfway: NDArray[np.float64] = (values[cuts, labels] + values[cuts + 1, labels]) / 2
    return halfway
