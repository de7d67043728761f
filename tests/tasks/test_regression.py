"""Regression: values, correlations, doubts, and the way of a tiny model from training to the server."""

import logging

import numpy as np
import pytest
import scipy.stats

from optkit.core.errors import GateError, InputError
from optkit.evaluation.bootstrap import paired_bootstrap
from optkit.tasks.correlation import CORRELATIONS
from optkit.tasks.data.tables import Table
from optkit.tasks.outcomes import VALUES, of_draws, value
from optkit.tasks.registry import load
from optkit.tasks.regression import Regression, Value

ROWS = 40


def table(labels: list, **columns: list) -> Table:
    texts = columns or {"text": [f"row {index}" for index in range(len(labels))]}
    return Table("rows", {**texts, "label": labels}, range(1, len(labels) + 1), "row")


def task_of(labels: list, **columns: list) -> Regression:
    return Regression("regression", {"train": table(labels, **columns), "dev": table(labels, **columns)})


def outcomes(count: int = 200, seed: int = 0, noise: float = 1.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    found = np.empty(count, VALUES)
    found["gold"] = random.integers(0, 11, count) / 2  # many equal ones, as people's ratings are
    found["predicted"] = found["gold"] + noise * random.normal(size=count)
    return found


@pytest.mark.parametrize(("name", "reference"), [("spearman", scipy.stats.spearmanr), ("pearson", scipy.stats.pearsonr)])
def test_a_correlation_is_scipys(name: str, reference) -> None:
    found = outcomes()
    assert value(found, name) == pytest.approx(100 * reference(found["gold"], found["predicted"])[0])


@pytest.mark.parametrize("name", CORRELATIONS)
def test_a_resample_is_the_metric_of_the_drawn_examples(name: str) -> None:
    found = outcomes(60)
    drawn = np.random.default_rng(1).integers(60, size=60)
    (computed,) = of_draws(found, name)(np.bincount(drawn, minlength=60)[None])
    assert computed == pytest.approx(value(found[drawn], name))


def test_a_constant_correlates_with_nothing() -> None:
    found = outcomes()
    found["predicted"] = 2.5
    assert value(found, "spearman") == value(found, "pearson") == 0.0


def test_an_interval_holds_the_difference() -> None:
    baseline, worse = outcomes(noise=0.5), outcomes(noise=1.5)
    low, high = paired_bootstrap(worse, baseline, "spearman", resamples=400)
    assert low < value(worse, "spearman") - value(baseline, "spearman") < high < 0
    assert paired_bootstrap(baseline, baseline, "spearman", resamples=100) == (0.0, 0.0)


def test_features_predictions_and_scores(tokenizer) -> None:
    task = task_of([0.5, "3", 2], sentence1=["a", "b", "c"], sentence2=["d", "e", "f"])
    features = task.encode("dev", tokenizer)
    assert features["labels"][:] == [0.5, 3.0, 2.0]
    predictions = task.predict(features.select([2, 0, 1]), [np.array([number]) for number in (2.0, 1.0, 4.0)])
    assert predictions == [1.0, 4.0, 2.0]
    assert task.score(predictions) == pytest.approx({"spearman": 100.0, "pearson": 95.382097, "mae": 0.5})
    assert task.shown(1 / 3) == "0.3333" == str(Value(1 / 3))
    assert task.logits_shape == (1,)
    with pytest.raises(GateError, match="found NaN or infinity"):
        task.predict(features, [np.array([number]) for number in (1.0, np.nan, 2.0)])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1.0, None], "rows, row 2: found no value (None); expected a number. Fix: write the value, or remove the row"),
        ([1.0, " "], "rows, row 2: found no value (' ')"),
        ([1.0, "2,5"], "rows, row 2: found the value '2,5'; expected a finite number, with a point for decimals"),
        ([1.0, float("inf")], "rows, row 2: found the value inf; expected a finite number"),
        ([1.0, "nan"], "rows, row 2: found the value 'nan'; expected a finite number"),
        ([1.0, "1_000"], "rows, row 2: found the value '1_000'; expected a finite number"),
        ([1.0, "٣"], "rows, row 2: found the value '٣'; expected a finite number"),
        ([1.0, 1e39], "rows, row 2: found the value 1e+39; expected a finite number"),
        ([1.0, True], "rows, row 2: found the value True; expected a finite number"),
        ([1.0, 10**400], "rows, row 2: found the value 1000"),
        ([2, 2.0], "rows: found the value 2 in each of 2 rows; expected different ones"),
    ],
)
def test_a_value_that_is_none_is_named(labels: list, message: str) -> None:
    with pytest.raises(InputError) as error:
        task_of(labels)
    assert message in str(error.value)


def test_values_that_training_reaches_slowly_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        task_of([0, 100])
    assert "rows: values of up to 100, which training reaches slowly; divide them, so that they lie within 20" in caplog.text


def test_values_that_float32_cannot_tell_apart_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        task_of([0.1 + 0.2, 0.3, 1 / 3, 5.0, 1000.1])
    assert "float32" not in caplog.text, "what rounding moves is nothing beside their spread"
    with caplog.at_level(logging.WARNING):
        task_of([1e9 + number for number in range(40)])
    # the spacing of float32 is 64 from 2**29 to 2**30; 1e9 is a multiple of 64
    assert "rows: float32, in which values are learned, moves them by up to 32: 40 different ones become 2" in caplog.text
    assert "subtract 1000000000" in caplog.text
    with pytest.raises(
        InputError, match=r"float32 cannot tell apart \(1000000000 to 1000000001\).*subtract what all have in"
    ):
        task_of([1e9, 1e9 + 1])


def test_doubts() -> None:
    labels = (np.arange(ROWS) / 8).tolist()
    task, random = task_of(labels), np.random.default_rng(0)
    assert task.degenerate([label + random.normal() for label in labels]) is None
    assert task.degenerate([2.0] * ROWS).verdict == "fail"
    assert task.degenerate([2.0 + label / 1000 for label in labels]).verdict == "fail"  # noise whose order may be right
    assert task.degenerate([label / 5 for label in labels]) is None  # another scale
    assert task.degenerate([-label for label in labels]).verdict == "fail"
    assert task.degenerate(random.permutation(labels).tolist()).verdict == "undecided"
    few = task_of(labels[:3])
    assert few.degenerate(labels[:3]).verdict == "undecided"


def test_a_bad_teacher(tokenizer) -> None:
    task = task_of([0.0, 1.0, 2.0])
    features = task.encode("train", tokenizer)
    assert task.weakness(features, [np.array([number]) for number in (0.0, 1.0, 2.5)]) is None
    assert "has a squared error of 4 on the training examples; always answering their mean has 0.667" in task.weakness(
        features, [np.array([number]) for number in (2.0, 3.0, 4.0)]
    )


def test_served_values_differ_where_rounding_does_not_explain_it() -> None:
    assert Regression.served.differing(["1.001", "2.4", "3"], ["1", "2", "3"]) == [1]


def test_by_name(tmp_path) -> None:
    for split in ("train", "dev"):
        (tmp_path / f"{split}.csv").write_text("a,b,similarity\nx,y,0.5\nz,w,4\n")
    task = load("regression", tmp_path, text_column="a", text_pair_column="b", label_column="similarity")
    assert task.examples("dev")["label"][:] == [0.5, 4.0]
    task.choose_metric("pearson")
    with pytest.raises(InputError, match=r"--metric mae: task 'regression' has spearman, pearson"):
        task.choose_metric("mae")
