"""Judges whether predictions are better than knowing nothing: than one constant answer, than chance, than swapped classes.

Shares of right answers are compared by their exact 95 % interval (Clopper and Pearson 1934), so that a few examples say
neither that a weak model is wrong nor that a lucky one is right.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from optkit.tasks import rankings, squad_metric
from optkit.tasks.correlation import spearman
from optkit.tasks.outcomes import METRICS, Counts, accuracy

HEADROOM = 0.1
"""Share of what a constant answer leaves to be gained; a model that surely gains less has learned nothing of use."""
_SPREAD = 0.01
"""Share of the right values' spread below which predicted values are one value with noise, whatever their ranks."""
_ENOUGH = 5
"""Examples of other answers that a model which finds half of them misses all of with less than 5 % probability: 2^-5."""
_SHARE, _F1 = ("is right on", " %", "of"), ("has a mean F1 of", "", "on")
"""Words around a score."""
_SHOWN = 4
"""Classes that a message names."""
MORE = ": more evaluation examples would tell the two apart"


class Doubt(NamedTuple):
    """What speaks against a model, whatever it is compared with."""

    verdict: Literal["undecided", "fail"]
    """`fail` where it is certain, `undecided` where there are too few examples to tell."""
    reason: str
    """Continues a sentence that begins with the model, such as "is right on …"."""


def of_classes(gold: NDArray[np.int64], predicted: NDArray[np.int64], labels: Sequence[str], metric: str) -> Doubt | None:
    """Return what speaks against the predictions of a classifier; None where nothing does.

    Accuracy is compared with that of the most frequent class. Other metrics do not reward a constant answer: there the share
    of right answers is compared with that of the same answers in random order.

    Args:
        gold: right class indices, [examples].
        predicted: predicted class indices, [examples].
        labels: class names by index.
        metric: name of the headline metric.
    """
    classes, counts = np.unique(gold, return_counts=True)
    if len(classes) == 1:
        reason = f"is scored on examples of the one class {labels[classes[0]]!r}, which a constant answer gets right as well"
        return Doubt("undecided", reason)
    if len(np.unique(predicted)) == 1:
        return constant(f"{labels[predicted[0]]!r}", gold == predicted)
    if doubt := _renamed(gold, predicted, labels):
        return doubt
    if METRICS[metric] is accuracy:
        right = gold == predicted
        most = classes[counts.argmax()]
        than, reference = f"always answering {labels[most]!r} would be on", gold == most
        if _mostly(right & ~reference, reference & ~right):
            return None
        return _no_better(right.mean(), len(gold), reference.mean(), _SHARE, than)
    return _shuffled(gold, predicted, len(labels))


def of_tags(
    gold: NDArray[np.int64], predicted: NDArray[np.int64], labels: Sequence[str], outcomes: NDArray[Any]
) -> Doubt | None:
    """Return what speaks against the tags of a tagger; None where nothing does.

    Args:
        gold: right class index of each token, [tokens].
        predicted: predicted class index of each token, [tokens].
        labels: tags by index.
        outcomes: of the kind `counts`, of entities.
    """
    right, entities, found = (int(outcomes[name].sum()) for name in Counts._fields)
    if not entities:
        return Doubt("undecided", "is scored on texts without any entity")
    if not right:
        said = f"finds none of the {entities:,} entities" + ("" if found else ", nor anything else")
        if entities < _ENOUGH:
            return Doubt("undecided", f"{said}; with so few that may be chance{MORE}")
        return Doubt("fail", f"{said}: its training was too short or diverged, or its head is not the one that was trained")
    return _renamed(gold, predicted, labels, "tokens") or _shuffled(gold, predicted, len(labels), "tokens")


def of_values(gold: NDArray[np.float64], predicted: NDArray[np.float64]) -> Doubt | None:
    """Return what speaks against predicted values; None where nothing does.

    Their rank correlation is compared with none, by the interval of Fisher's z (with the 1.06 of Fieller et al. 1957).

    Args:
        gold: right values, [examples].
        predicted: predicted values, [examples].
    """
    if np.ptp(gold) == 0:
        return Doubt("undecided", f"is scored on examples of the one value {gold[0]:.4g}, with which nothing correlates")
    if predicted.std() <= _SPREAD * gold.std():
        constant = f"answers {predicted.mean():.4g}, and hardly anything else, to each of the {len(gold):,} examples"
        return Doubt("fail", f"{constant}: its training was too short or diverged")
    found = float(spearman(gold, predicted, np.ones((1, len(gold))))[0])
    reach = 1.96 * 1.06 / np.sqrt(len(gold) - 3) if len(gold) > 3 else np.inf
    low, high = np.tanh(np.arctanh(np.clip(found, -0.999999, 0.999999)) + np.array([-reach, reach]))
    if low > 0:
        return None
    said = f"has a rank correlation of {100 * found:.1f} on the {len(gold):,} examples [{100 * low:.1f}, {100 * high:.1f}]"
    if high < HEADROOM:
        return Doubt("fail", f"{said}; the same values in random order would have 0.0")
    return Doubt("undecided", f"{said}, which may be none{MORE}")


def of_answers(predictions: Sequence[str], gold: Sequence[Sequence[str]], passages: Sequence[str]) -> Doubt | None:
    """Return what speaks against answers quoted from passages; None where nothing does.

    Their F1 is compared with that of equally long pieces from anywhere in the passages, or with that of never answering.

    Args:
        predictions: answer to each question, "" for none.
        gold: right answers to each question, `[""]` for none.
        passages: text of each question.
    """
    scores = np.array([squad_metric.f1(*one) for one in zip(predictions, gold, strict=True)])
    if len({squad_metric.normalized(text) for text in predictions}) == 1 and len({answers[0] for answers in gold}) > 1:
        return constant(repr(predictions[0]) if predictions[0] else "nothing", scores > 0)
    none, rows = float(np.mean([list(answers) == [""] for answers in gold])), zip(predictions, gold, passages, strict=True)
    chance = [squad_metric.chance_f1(*row) if row[0] or not none else none for row in rows]
    than, reference = "equally long pieces from anywhere in the passages would have", float(np.mean(chance))
    if none > reference:
        than, reference = "never answering would have", none
    return _no_better(scores.mean(), len(scores), reference, _F1, than)


def of_rankings(relevance: Sequence[rankings.Grades], found: Sequence[rankings.Scores], metric: str) -> Doubt | None:
    """Return what speaks against scores of documents; None where nothing does.

    Queries whose documents are all equally relevant say nothing. Of the others the metric is compared with that of the same
    documents in random order.

    Args:
        relevance: grades of each query's documents.
        found: predicted scores of each query's documents.
        metric: name of the headline metric.
    """
    pairs = zip(relevance, found, strict=True)
    telling = [place for place, (own, scores) in enumerate(pairs) if len({own.get(name, 0) for name in scores}) > 1]
    if not telling:
        return Doubt(
            "undecided", "is scored on queries whose documents are all equally relevant: any order of them is right"
        )
    grades, scores = [relevance[place] for place in telling], [found[place] for place in telling]
    if all(len({np.float32(value) for value in own.values()}) == 1 for own in scores):
        reason = "gives all documents of a query the same score: its training was too short or diverged"
        return Doubt("fail", reason)
    mean = rankings.per_query(grades, scores, [metric])[metric].mean() / 100
    words = (f"has a mean {metric} of", "", "over")
    than = "the same documents in random order would have"
    return _no_better(float(mean), len(telling), rankings.by_chance(grades, scores, metric) / 100, words, than, "queries")


def constant(answer: str, right: NDArray[np.bool_]) -> Doubt:
    """Return the doubt about a model that gives the same answer to everything.

    Args:
        answer: it, as text for people.
        right: where it is right, [examples].
    """
    said = f"answers {answer} to each of the {len(right):,} examples, which is right for {100 * right.mean():.1f} % of them"
    if (~right).sum() < _ENOUGH:
        return Doubt("undecided", f"{said}; with so few others that may be chance{MORE}")
    return Doubt("fail", f"{said}: its training was too short or diverged, or its head is not the one that was trained")


def interval(share: float, count: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share of `count` examples; a wider one where scores lie between 0 and 1."""
    from scipy.special import betaincinv

    hits = share * count
    low = betaincinv(hits, count - hits + 1, 0.025) if hits > 0 else 0.0
    high = betaincinv(hits + 1, count - hits, 0.975) if hits < count else 1.0
    return float(low), float(high)


def _no_better(
    share: float, count: int, reference: float, words: tuple[str, str, str], than: str, what: str = "examples"
) -> Doubt | None:
    """Return a doubt unless a share lies above a reference, both from 0 to 1, by its interval."""
    low, high = interval(share, count)
    if low > reference:
        return None
    score, unit, of = words
    found = f"{score} {100 * share:.1f}{unit} {of} the {count:,} {what} [{100 * low:.1f}, {100 * high:.1f}]"
    said = f"{found}; {than} {100 * reference:.1f}{unit}"
    if high < reference + HEADROOM * (1 - reference):
        return Doubt("fail", said)
    return Doubt("undecided", said + MORE)


def _shuffled(gold: NDArray[np.int64], predicted: NDArray[np.int64], classes: int, what: str = "examples") -> Doubt | None:
    """Return a doubt unless answers are right more often than the same answers in random order."""
    shares = [np.bincount(found, minlength=classes) / len(gold) for found in (gold, predicted)]
    than = "the same answers in random order would be on"
    return _no_better((gold == predicted).mean(), len(gold), float(shares[0] @ shares[1]), _SHARE, than, what)


def _renamed(
    gold: NDArray[np.int64], predicted: NDArray[np.int64], labels: Sequence[str], what: str = "examples"
) -> Doubt | None:
    """Return the doubt about a model that would clearly be right more often if its classes were named otherwise.

    The best names for one half of the examples are tried on the other half, so that names which fit by chance gain nothing.
    At least two classes must be meant otherwise, and more than half of their predictions: a weak model that takes a class
    for another is no such case.
    """
    half = np.empty(len(gold), dtype=np.int64)
    half[np.argsort(gold, kind="stable")] = np.arange(len(gold)) % 2
    renamed = predicted.copy()
    for fold in (0, 1):
        other, own = half != fold, half == fold
        renamed[own] = _best_names(gold[other], predicted[other], len(labels))[predicted[own]]
    moved = renamed != predicted
    better, worse = moved & (renamed == gold), moved & (predicted == gold)
    if len(np.unique(predicted[better])) < 2 or 2 * better.sum() <= moved.sum() or not _mostly(better, worse):
        return None
    names = _best_names(gold, predicted, len(labels))
    pairs = [f"{labels[at]!r} -> {labels[name]!r}" for at, name in enumerate(names) if at != name]
    shown = ", ".join(pairs[:_SHOWN]) + ", …" * (len(pairs) > _SHOWN)
    reason = (
        f"is right on {100 * (gold == predicted).mean():.1f} % of the {len(gold):,} {what}, and would be on "
        f"{100 * (gold == names[predicted]).mean():.1f} % if its classes were named otherwise ({shown}): its head's classes "
        "stand in another order than the data's, see --labels"
    )
    return Doubt("fail", reason)


def _best_names(gold: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return for each predicted class the one whose name makes most predictions right; its own where that does."""
    from scipy.optimize import linear_sum_assignment

    counts = np.eye(classes) / (classes + 1)
    np.add.at(counts, (predicted, gold), 1.0)
    names: NDArray[np.int64] = linear_sum_assignment(counts, maximize=True)[1]
    return names


def _mostly(better: NDArray[np.bool_], worse: NDArray[np.bool_]) -> bool:
    """Whether examples that got better clearly outnumber those that got worse (exact sign test)."""
    gains, losses = int(better.sum()), int(worse.sum())
    return gains > losses and interval(gains / (gains + losses), gains + losses)[0] > 0.5
