"""Questions that may have no answer, as in SQuAD 2.0: predictions, scores, and the threshold (Rajpurkar et al. 2018, arXiv
1806.03822)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from optkit.tasks import squad_metric
from optkit.tasks.data.tables import problem

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)
_FARTHEST = 1e4
"""Largest margin; a passage without any span has an infinite one."""


class Reply(NamedTuple):
    """The prediction for a question that may have no answer."""

    answer: str
    """The answer, "" for none."""
    best: str
    """The best answer, whether or not it is given."""
    margin: float
    """How far the score of no answer lies above that of the best answer."""


def text_of(prediction: str | Reply) -> str:
    """Return the answer of a prediction, "" for none."""
    return prediction if isinstance(prediction, str) else prediction.answer


def is_told(name: str, train: Dataset, dev: Dataset) -> bool:
    """Return whether questions without an answer are among those to train on.

    Raises:
        InputError: there are such questions in the dev split alone.
    """
    without = [sum(not answers["text"] for answers in split["answers"]) for split in (train, dev)]
    if without[1] and not without[0]:
        found = f"{without[1]:,} questions without an answer in the dev split, and none in the train split"
        raise problem(name, found, "some in both", "train on SQuAD 2.0, or score on SQuAD 1.1")
    if without[0]:
        log.info("%s: %d of %d questions to train on have no answer", name, without[0], len(train))
    return without[0] > 0


def check_first(name: str, places: Sequence[int]) -> None:
    """Raise `InputError` unless the token that stands for no answer is the first of every feature."""
    if any(places):
        found = "a tokenizer without [CLS], or another first token, at the begin of its inputs"
        raise problem(name, found, "one with, whose logits are the score of no answer", "take another model, or SQuAD 1.1")


def best_threshold(replies: Sequence[Reply], gold: Sequence[Sequence[str]]) -> tuple[float, float]:
    """Return the margin from which no answer is given for the highest mean F1, and that F1 from 0 to 1.

    Args:
        replies: predictions; those with a margin above the threshold become none.
        gold: right answers to each question, `[""]` for none.
    """
    margins = np.clip([one.margin for one in replies], -_FARTHEST, _FARTHEST)
    order = np.argsort(margins, kind="stable")
    given = np.array([squad_metric.f1(one.best, right) for one, right in zip(replies, gold, strict=True)])[order]
    none = np.array([squad_metric.f1("", right) for right in gold])[order]
    margins = np.concatenate([[margins.min() - 2], margins[order], [margins.max() + 2]])
    totals = _up_to(given) + none.sum() - _up_to(none)  # of so many answers with the lowest margins, and none for the others
    cut = int(np.where(margins[:-1] < margins[1:], totals, -np.inf).argmax())
    return float(margins[cut] + margins[cut + 1]) / 2, float(totals[cut]) / len(order)


def scores(replies: Sequence[Reply], gold: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return the metrics that SQuAD 2.0's evaluation has besides F1 and exact match of all questions, in points.

    Args:
        replies: predictions.
        gold: right answers to each question, `[""]` for none.
    """
    has = np.array([list(right) != [""] for right in gold])
    pairs = list(zip((one.answer for one in replies), gold, strict=True))
    f1 = 100.0 * np.array([squad_metric.f1(*pair) for pair in pairs])
    exact = 100.0 * np.array([squad_metric.exact_match(*pair) for pair in pairs])
    threshold, best = best_threshold(replies, gold)
    found = {"has_answer_f1": f1[has], "has_answer_exact_match": exact[has], "no_answer_f1": f1[~has]}
    means = {name: float(values.mean()) for name, values in found.items() if len(values)}
    return {**means, "best_f1": 100.0 * best, "best_threshold": threshold}


def _up_to(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums of the first 0, 1, 2, … values."""
    return np.concatenate([[0.0], np.cumsum(values)])
