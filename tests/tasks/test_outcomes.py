"""Metrics counted from outcomes agree with scikit-learn, for all examples and for resamples."""

import numpy as np
import pytest
from sklearn import metrics

from optkit.core.errors import InputError
from optkit.evaluation.bootstrap import paired_bootstrap
from optkit.tasks.outcomes import CLASSES, METRICS, class_rows, counted, in_words, value
from optkit.tasks.registry import load


def outcomes(classes: int, right: float, count: int = 400, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    found = np.empty(count, CLASSES)
    found["classes"] = classes
    found["gold"] = random.choice(classes, count, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    found["predicted"] = np.where(random.random(count) < right, found["gold"], random.integers(classes, size=count))
    return found


def by_sklearn(name: str, gold: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    average = "binary" if classes == 2 else "macro"
    own = {"average": average, "zero_division": 0.0}
    return (
        100.0
        * {
            "accuracy": lambda: metrics.accuracy_score(gold, predicted),
            "micro_f1": lambda: metrics.f1_score(gold, predicted, average="micro"),
            "f1": lambda: metrics.f1_score(gold, predicted, **own),
            "precision": lambda: metrics.precision_score(gold, predicted, **own),
            "recall": lambda: metrics.recall_score(gold, predicted, **own),
            "macro_f1": lambda: metrics.f1_score(gold, predicted, average="macro", zero_division=0.0),
            "weighted_f1": lambda: metrics.f1_score(gold, predicted, average="weighted", zero_division=0.0),
            "balanced_accuracy": lambda: metrics.balanced_accuracy_score(gold, predicted),
            "matthews": lambda: metrics.matthews_corrcoef(gold, predicted),
        }[name]()
    )


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_scikit_learns(name: str, classes: int) -> None:
    found = outcomes(classes, 0.7)
    assert value(found, name) == pytest.approx(by_sklearn(name, found["gold"], found["predicted"], classes))


@pytest.mark.parametrize("name", METRICS)
def test_a_constant_prediction(name: str) -> None:
    found = outcomes(3, 0.5)
    found["predicted"] = 1
    assert value(found, name) == pytest.approx(by_sklearn(name, found["gold"], found["predicted"], 3))


@pytest.mark.parametrize("name", METRICS)
def test_a_resample_is_the_metric_of_the_drawn_examples(name: str) -> None:
    found = outcomes(3, 0.6, count=60)
    drawn = np.random.default_rng(1).integers(60, size=60)
    counts = counted(class_rows(found), np.bincount(drawn, minlength=60)[None])
    assert 100.0 * METRICS[name](counts)[0] == pytest.approx(value(found[drawn], name), rel=1e-5)


def test_accuracy_by_classes_has_the_interval_of_example_scores() -> None:
    ours, theirs = outcomes(4, 0.8), outcomes(4, 0.7, seed=0)
    points = [100.0 * (found["gold"] == found["predicted"]) for found in (ours, theirs)]
    assert paired_bootstrap(ours, theirs, "accuracy") == paired_bootstrap(*points, "accuracy")


def test_a_counted_interval_covers_what_drawing_examples_gives() -> None:
    ours, theirs = outcomes(3, 0.8), outcomes(3, 0.7)
    random = np.random.default_rng(7)
    drawn = [random.integers(400, size=400) for _ in range(2000)]
    deltas = [value(ours[rows], "macro_f1") - value(theirs[rows], "macro_f1") for rows in drawn]
    expected = np.percentile(deltas, [2.5, 97.5])
    assert paired_bootstrap(ours, theirs, "macro_f1") == pytest.approx(tuple(expected), abs=0.4)
    assert paired_bootstrap(ours, ours, "macro_f1") == (0.0, 0.0)


def test_seeds_that_agree_have_the_interval_of_one() -> None:
    ours, theirs = outcomes(3, 0.8), outcomes(3, 0.7)
    one = paired_bootstrap(ours, theirs, "matthews", resamples=4000)
    both = paired_bootstrap(np.stack([ours, ours]), np.stack([theirs, theirs]), "matthews", resamples=4000)
    assert both == pytest.approx(one, abs=0.3)


def test_a_class_that_does_not_occur_is_still_one() -> None:
    two, three = outcomes(2, 0.7), outcomes(2, 0.7)
    three["classes"] = 3
    gold, predicted = three["gold"], three["predicted"]
    assert value(three, "f1") == pytest.approx(by_sklearn("macro_f1", gold, predicted, 3))
    assert value(two, "f1") == pytest.approx(by_sklearn("f1", gold, predicted, 2)) != pytest.approx(value(three, "f1"))
    once = three.copy()
    once["predicted"][0] = 2
    low, high = paired_bootstrap(once, three, "f1", resamples=500)
    assert low <= value(once, "f1") - value(three, "f1") <= high


def test_metrics_in_words() -> None:
    assert in_words("f1", ["ham", "spam"]) == "f1 of the class 'spam'"
    assert in_words("recall", "abc") == "recall, the mean over 3 classes"
    assert in_words("matthews", "abc") == "matthews"


def test_another_headline_metric(write) -> None:
    rows = "text\tlabel\na\tx\nb\ty\nc\ty\n"
    folder = write({"train.tsv": rows, "dev.tsv": rows})
    task = load("classification", folder, metric="macro_f1")
    assert (task.metric, task.score([1, 1, 1])["macro_f1"]) == ("macro_f1", pytest.approx(40.0))
    assert load("classification", folder).metric == "accuracy"
    with pytest.raises(InputError, match="--metric bleu: task 'classification' has accuracy, f1, macro_f1"):
        load("classification", folder, metric="bleu")
