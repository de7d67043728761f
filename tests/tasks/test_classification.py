"""Classification: columns, classes, features, scores."""

import numpy as np
import pytest

from optkit.core.errors import GateError, InputError
from optkit.tasks.base import Task
from optkit.tasks.classification import Classification
from optkit.tasks.data.tables import Table
from optkit.tasks.outcomes import example_points, value
from optkit.tasks.registry import load
from optkit.tasks.texts import TEXT_COLUMNS

GOOD = "sentence\tlabel\ngood\t1\nbad\t0\n"


def table(source: str = "rows", **columns: list) -> Table:
    return Table(source, columns, range(1, len(next(iter(columns.values()))) + 1), "row")


def task_of(train: Table, dev: Table | None = None, **settings) -> Classification:
    return Classification("classification", {"train": train, "dev": dev or train}, **settings)


@pytest.mark.parametrize("names", TEXT_COLUMNS)
def test_known_text_columns_and_pairs(names: tuple[str, ...], tokenizer) -> None:
    texts = {name: [f"{letter} 1", f"{letter} 2"] for name, letter in zip(names, "ab", strict=False)}
    task: Task = task_of(table(**texts, label=["x", "y"], idx=[0, 1]))
    features = task.encode("train", tokenizer)
    expected = {1: "[CLS] a 2 [SEP]", 2: "[CLS] a 2 [SEP] b 2 [SEP]"}[len(names)]
    assert tokenizer.decode(features[1]["input_ids"]) == expected
    assert features[1]["token_type_ids"] == [0] * 4 + [1] * 3 * (len(names) - 1)
    assert task.examples("train").column_names == [*names, "label"]


def test_features_carry_target_example_and_length(tokenizer) -> None:
    rows = table(text=["a" * 50, "b", "c d"], label=["no", "yes", "no"])
    features = task_of(rows, max_length=20).encode("dev", tokenizer)
    assert set(features.column_names) == {*tokenizer.model_input_names, "labels", "example", "length", "whole_length"}
    assert features["labels"][:] == [0, 1, 0]
    assert features["example"][:] == [0, 1, 2]
    assert features["length"][:] == [20, 3, 4] == [len(tokens) for tokens in features["input_ids"]]
    assert features["whole_length"][:] == [52, 3, 4]


def test_a_model_shorter_than_the_task_cuts_earlier(tokenizer) -> None:
    features = task_of(table(text=["a " * 100, "b"], label=[0, 1])).encode("dev", tokenizer)
    assert features["length"][:] == [tokenizer.model_max_length, 3]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["yes", "no", "maybe"], ("maybe", "no", "yes")),
        (["10", "9", "-1"], ("-1", "9", "10")),
        ([10, 9, 2], ("2", "9", "10")),
        (["10", "9", "b"], ("10", "9", "b")),
        ([" null", "NA ", "x"], ("NA", "null", "x")),
    ],
)
def test_classes_are_sorted_whole_numbers_by_value(labels: list, classes: tuple[str, ...]) -> None:
    task = task_of(table(text=["a", "b", "c"], label=labels))
    assert task.labels == classes
    assert [classes[label] for label in task.examples("dev")["label"]] == [str(label).strip() for label in labels]


MISTAKES = {
    "train.tsv: found no column 'label' (columns: sentence, stars); expected the class of each row in 'label'": (
        "sentence\tstars\ngood\t1\n"
    ),
    "train.tsv: found no column with text (columns: review, label); expected text; or sentence; or text and": (
        "review\tlabel\ngood\t1\nbad\t0\n"
    ),
    "train.tsv: found texts under several names (sentence; text)": "sentence\ttext\tlabel\na\tb\t1\nc\td\t0\n",
    "train.tsv: found only one class ('1') in 2 rows; expected two or more": "sentence\tlabel\ngood\t1\nbad\t1\n",
    "train.tsv, line 3: found no label (''); expected a class: text or a whole number. Fix: label the row, or remove": (
        "sentence\tlabel\ngood\t1\nbad\t\n"
    ),
    "train.tsv, line 2: found empty text in 'sentence'; expected text": "sentence\tlabel\n \t1\nbad\t0\n",
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_in_the_train_file(message: str, write) -> None:
    folder = write({"train.tsv": MISTAKES[message], "dev.tsv": GOOD})
    with pytest.raises(InputError) as error:
        load("classification", folder)
    assert f"{folder}/{message}" in str(error.value)
    assert "Fix: " in str(error.value)


DEV_MISTAKES = {
    "dev.tsv: found no column 'label' (columns: sentence); expected the class of each row in 'label'": "sentence\ngood\n",
    "dev.tsv, line 3: found no label (''); expected a class: text or a whole number": "sentence\tlabel\ngood\t1\nbad\t\n",
    "dev.tsv, line 3: found label '2'; expected a class of the train file: 0, 1. Fix: correct the label, or add": (
        "sentence\tlabel\ngood\t1\nbad\t2\n"
    ),
    "dev.tsv: found no column 'sentence' (columns: text, label); expected 'sentence', as in the train file": (
        "text\tlabel\ngood\t1\n"
    ),
}


@pytest.mark.parametrize("message", DEV_MISTAKES)
def test_a_mistake_in_the_dev_file(message: str, write) -> None:
    folder = write({"train.tsv": GOOD, "dev.tsv": DEV_MISTAKES[message]})
    with pytest.raises(InputError) as error:
        load("classification", folder)
    assert f"{folder}/{message}" in str(error.value)


@pytest.mark.parametrize(("value", "found"), [(None, "no label (None)"), (0.5, "label 0.5 (float)")])
def test_a_label_is_text_or_a_whole_number(value: object, found: str) -> None:
    with pytest.raises(InputError) as error:
        task_of(table(text=["a", "b"], label=[1, value]))
    assert f"rows, row 2: found {found}; expected a class: text or a whole number" in str(error.value)


@pytest.mark.parametrize("value", [-1, 2])
def test_a_number_without_a_class_name(value: int) -> None:
    rows = Table("rows", {"text": ["a", "b"], "label": [0, value]}, [1, 2], "row", classes={"label": ("n", "y")})
    with pytest.raises(InputError, match=r"rows, row 2: found .*label"):
        task_of(rows)


def test_predictions_follow_the_examples_whatever_the_order_of_the_features(tokenizer) -> None:
    task = task_of(table(text=["a", "b", "c"], label=["x", "y", "x"]))
    features = task.encode("dev", tokenizer)
    logits = [np.array([2.0, 1.0]), np.array([0.0, 3.0]), np.array([-2.0, -1.0])]
    assert task.predict(features, logits) == [0, 1, 1]
    assert task.predict(features.select([2, 0, 1]), [logits[2], logits[0], logits[1]]) == [0, 1, 1]


def test_scores_by_hand() -> None:
    task = task_of(table(text=list("abcdef"), label=["n", "n", "n", "y", "y", "y"]))
    predictions = [0, 0, 1, 1, 1, 0]  # 2 true positives, 1 false positive, 1 false negative, 2 true negatives
    scores = task.score(predictions)
    assert scores["accuracy"] == pytest.approx(400 / 6)
    assert scores["f1"] == pytest.approx(100 * 2 / 3)
    assert scores["matthews"] == pytest.approx(100 * (2 * 2 - 1 * 1) / 9)
    assert example_points(task.outcomes(predictions), "accuracy").tolist() == [100, 100, 0, 100, 100, 0]
    assert value(task.outcomes(predictions), "accuracy") == scores[task.metric]


def test_f1_of_three_classes_is_macro() -> None:
    task = task_of(table(text=list("abc"), label=["x", "y", "z"]))
    assert task.score([0, 1, 1])["f1"] == pytest.approx(100 * (1 + 2 / 3 + 0) / 3)


def test_a_prediction_for_each_example() -> None:
    task = task_of(table(text=["a", "b"], label=["x", "y"]))
    with pytest.raises(ValueError, match="1 predictions for 2 dev examples; expected one for each"):
        task.score([0])


def test_logits_that_are_not_numbers_fail_the_gate(tokenizer) -> None:
    task = task_of(table(text=["a", "b"], label=["x", "y"]))
    features = task.encode("dev", tokenizer)
    with pytest.raises(GateError, match=r"logits of 1 of 2 features \(first: feature 1\): found NaN or infinity"):
        task.predict(features, [np.array([0.0, 1.0]), np.array([np.nan, 1.0])])
    with pytest.raises(ValueError, match="logits of 1 features, expected 2"):
        task.predict(features, [np.array([0.0, 1.0])])
