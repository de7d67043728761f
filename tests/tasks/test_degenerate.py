"""What is no better than knowing nothing fails, what few examples cannot tell is undecided, and weak honest models pass."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from optkit.tasks import registry
from optkit.tasks.data.squad import FEATURES
from optkit.tasks.degenerate import Doubt, interval, of_classes
from optkit.tasks.question_answering import QuestionAnswering
from optkit.tasks.squad_metric import chance_f1, f1

TWO, MANY = ("negative", "positive"), tuple(f"class {i}" for i in range(77))


def mixed(gold: np.ndarray, share: float, classes: int, seed: int = 0) -> np.ndarray:
    """Predictions that are right for a share of the examples and drawn at random for the others."""
    random = np.random.default_rng(seed)
    return np.where(random.random(len(gold)) < share, gold, random.integers(0, classes, len(gold)))


BALANCED = np.arange(1000) % 2
RARE = (np.arange(1000) % 10 == 0).astype(np.int64)
SEVENTY_SEVEN = np.random.default_rng(1).integers(0, 77, 1532)
SWAPPED = np.where(np.arange(77) == 3, 5, np.where(np.arange(77) == 5, 3, np.arange(77)))


@pytest.mark.parametrize(
    ("gold", "predicted", "labels", "reason"),
    [
        (BALANCED, BALANCED * 0 + 1, TWO, "answers 'positive' to each of the 1,000 examples, which is right for 50.0 %"),
        (RARE, RARE * 0, TWO, "answers 'negative' to each of the 1,000 examples, which is right for 90.0 % of them"),
        (BALANCED, 1 - BALANCED, TWO, "is right on 0.0 % of the 1,000 examples, and would be on 100.0 % if its"),
        (BALANCED, 1 - mixed(BALANCED, 0.3, 2), TWO, "('negative' -> 'positive', 'positive' -> 'negative'): its head"),
        (np.arange(12) % 2, 1 - np.arange(12) % 2, TWO, "and would be on 100.0 %"),
        (np.arange(90) % 3, (np.arange(90) + 1) % 3, ("a", "b", "c"), "('a' -> 'c', 'b' -> 'a', 'c' -> 'b')"),
        (np.arange(90) % 3, np.array([1, 0, 2])[np.arange(90) % 3], ("a", "b", "c"), "is right on 33.3 % of the 90"),
        (SEVENTY_SEVEN, SWAPPED[mixed(SEVENTY_SEVEN, 0.9, 77)], MANY, "('class 3' -> 'class 5', 'class 5' -> 'class 3')"),
        (SEVENTY_SEVEN, np.roll(np.arange(77), 1)[mixed(SEVENTY_SEVEN, 0.9, 77)], MANY, "'class 3' -> 'class 4', …): its"),
        (BALANCED, np.arange(1000) // 2 % 2, TWO, "is right on 50.0 % of the 1,000 examples [46.9, 53.1]; always answering"),
        (SEVENTY_SEVEN, mixed(SEVENTY_SEVEN, 0.0, 77), MANY, "% of the 1,532 examples ["),
        (RARE, mixed(RARE, 0.5, 2), TWO, "; always answering 'negative' would be on 90.0 %"),
    ],
)
def test_what_has_learned_nothing_fails(
    gold: np.ndarray, predicted: np.ndarray, labels: tuple[str, ...], reason: str
) -> None:
    doubt = of_classes(gold, predicted, labels, "accuracy")
    assert doubt and doubt.verdict == "fail" and reason in doubt.reason


@pytest.mark.parametrize(
    ("gold", "predicted", "labels", "metric"),
    [
        (BALANCED, mixed(BALANCED, 0.2, 2), TWO, "accuracy"),
        (np.arange(6) % 2, np.arange(6) % 2, TWO, "accuracy"),
        # right for a tenth of the classes, and taking the others for them: weak, and its classes have the right names
        (SEVENTY_SEVEN, SEVENTY_SEVEN % 8, MANY, "accuracy"),
        (SEVENTY_SEVEN, mixed(SEVENTY_SEVEN, 0.03, 77), MANY, "accuracy"),
        # one class taken for the other of two that are alike
        (np.arange(90) % 3, np.minimum(np.arange(90) % 3, 1), ("a", "b", "c"), "accuracy"),
        # few more right answers than the frequent class has, and hardly a wrong one for it
        (RARE, RARE * (np.arange(1000) % 100 == 0), TWO, "accuracy"),
        # worse than always the frequent class by accuracy, and useful by a metric that counts the rare one
        (RARE, mixed(RARE, 0.5, 2), TWO, "matthews"),
        (RARE, mixed(RARE, 0.5, 2), TWO, "macro_f1"),
    ],
)
def test_weak_models_that_know_something_are_left_alone(
    gold: np.ndarray, predicted: np.ndarray, labels: tuple[str, ...], metric: str
) -> None:
    assert of_classes(gold, predicted, labels, metric) is None


@pytest.mark.parametrize(
    ("gold", "predicted", "reason"),
    [
        ([0, 1, 0, 1], [0, 1, 0, 1], "is right on 100.0 % of the 4 examples [39.8, 100.0]; always answering 'negative'"),
        ([0, 1, 0, 1], [1, 0, 1, 0], "is right on 0.0 % of the 4 examples"),
        (
            [0, 1, 0, 1],
            [1, 1, 1, 1],
            "answers 'positive' to each of the 4 examples, which is right for 50.0 % of them; with",
        ),
        ([0, 0, 0, 0], [0, 0, 1, 0], "is scored on examples of the one class 'negative'"),
    ],
)
def test_a_few_examples_leave_it_undecided(gold: list[int], predicted: list[int], reason: str) -> None:
    doubt = of_classes(np.array(gold), np.array(predicted), TWO, "accuracy")
    assert doubt and doubt.verdict == "undecided" and reason in doubt.reason


def test_honest_models_on_few_examples_are_hardly_ever_failed() -> None:
    verdicts = []
    for seed in range(300):
        gold = np.arange(16) % 2
        doubt = of_classes(gold, mixed(gold, 0.5, 2, seed), TWO, "accuracy")
        verdicts.append(doubt and doubt.verdict)
    assert verdicts.count("fail") <= 3 and verdicts.count("undecided") > 30


def test_answers_without_knowledge_fail_by_any_metric() -> None:
    for metric in ("accuracy", "f1", "macro_f1", "matthews"):
        doubt = of_classes(RARE, RARE[np.random.default_rng(0).permutation(1000)], TWO, metric)
        assert doubt and doubt.verdict == "fail"
    assert "; the same answers in random order would be on 82.0 %" in doubt.reason


def test_the_interval_is_exact() -> None:
    """Clopper and Pearson's bounds: with them, what was seen or more extreme has a probability of 2.5 %."""
    low, high = interval(0.3, 10)
    assert sum(math.comb(10, k) * low**k * (1 - low) ** (10 - k) for k in range(3, 11)) == pytest.approx(0.025)
    assert sum(math.comb(10, k) * high**k * (1 - high) ** (10 - k) for k in range(4)) == pytest.approx(0.025)
    assert interval(0.0, 10) == (0.0, pytest.approx(1 - 0.025 ** (1 / 10)))
    assert interval(1.0, 10) == (pytest.approx(0.025 ** (1 / 10)), 1.0)


def test_classification_judges_its_dev_split(write: Callable[..., Path]) -> None:
    rows = "text\tlabel\n" + "a\tnegative\nb\tpositive\n" * 20
    task = registry.load("classification", write({"train.tsv": rows, "dev.tsv": rows}))
    assert task.degenerate([0, 1] * 20) is None
    found = task.degenerate([1, 0] * 20)
    assert isinstance(found, Doubt) and "see --labels" in found.reason


def test_a_class_may_have_any_name() -> None:
    doubt = of_classes(BALANCED, np.arange(1000) // 2 % 2, ("{0}", "%s"), "accuracy")
    assert doubt and "always answering '{0}' would be on 50.0 %" in doubt.reason


def asked(count: int) -> QuestionAnswering:
    """Questions on passages of 40 words, each with another answer."""
    rows = []
    for number in range(count):
        words = [f"w{number}x{place}" for place in range(40)]
        answers = {"text": [" ".join(words[20:23])], "answer_start": [len(" ".join(words[:20])) + 1]}
        rows.append({"id": str(number), "question": "?", "context": " ".join(words), "answers": answers})
    data = Dataset.from_list(rows, features=FEATURES)
    return QuestionAnswering("asked", {"train": data, "dev": data})


def test_answers_that_are_not_better_than_any_piece_of_the_passage_fail() -> None:
    task, random = asked(200), np.random.default_rng(0)
    words = [context.split() for context in task.examples("dev")["context"]]
    starts = random.integers(0, 37, 200)
    anything = task.degenerate([" ".join(own[start : start + 3]) for own, start in zip(words, starts, strict=True)])
    assert anything and anything.verdict == "fail"
    assert anything.reason.startswith("has a mean F1 of ") and "equally long pieces from anywhere" in anything.reason
    assert task.degenerate([" ".join(own) for own in words]) is not None, "all of the passage"
    weak = [" ".join(own[20:23] if number % 4 == 0 else own[:3]) for number, own in enumerate(words)]
    assert task.degenerate(weak) is None


@pytest.mark.parametrize(
    ("answer", "said"), [("", "answers nothing to each"), ("w0x20", "answers 'w0x20' to each of the 200")]
)
def test_the_same_answer_to_every_question_fails(answer: str, said: str) -> None:
    doubt = asked(200).degenerate([answer] * 200)
    assert doubt and doubt.verdict == "fail" and said in doubt.reason
    few = asked(2).degenerate([answer] * 2)
    assert few and few.verdict == "undecided"


def test_the_f1_of_any_piece_by_hand() -> None:
    passage = "the b c d e f g h"  # seven words have two places, of which one holds the article that no F1 counts
    assert chance_f1("b c d e f g h", ["h"], passage) == pytest.approx((0 + f1("b c d e f g h", ["h"])) / 2)
    assert chance_f1("b", ["c"], "a b c d e f g h") == pytest.approx(1 / 8)
    assert chance_f1("", ["c"], passage) == 0.0
    assert chance_f1("x " * 20, ["h"], passage) == f1(passage, ["h"])
