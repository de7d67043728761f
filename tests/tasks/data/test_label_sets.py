"""Several labels a row: lists, texts, columns of 0 and 1, and what is wrong with them."""

import json
import logging

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from optkit.core.errors import InputError
from optkit.tasks.registry import load

CSV = "id,comment,toxic,insult\n7,a b,1,0\n8,c,0,0\n9,d,1,1\n"
"""A column of 0 and 1 for each label."""


def lines(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def labels_of(task, split="train") -> list[list[str]]:
    return [[task.labels[index] for index in row] for row in task.examples(split)["label"][:]]


def test_lists(write) -> None:
    rows = lines({"text": "a", "labels": ["y", "x"]}, {"text": "b", "labels": []}, {"text": "c", "labels": ["z"]})
    task = load("multi_label", write({"train.jsonl": rows, "dev.jsonl": rows}))
    assert task.labels == ("x", "y", "z") and task.text_columns == ("text",)
    assert labels_of(task) == [["x", "y"], [], ["z"]]
    assert task.class_shares("dev") == ([0, 1, 2], ("x", "y", "z"))
    assert [task.readable(row)["label"] for row in task.examples("dev")] == ["x, y", "(none)", "z"]


def test_columns_of_0_and_1_and_what_is_left_out(write, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        task = load("multi_label", write({"train.csv": CSV, "dev.csv": CSV}), text_column="comment")
    assert task.labels == ("toxic", "insult")  # in the file's order
    assert labels_of(task) == [["toxic"], [], ["toxic", "insult"]]
    assert "train.csv: left out: the columns id, which are not of 0 and 1" in caplog.text


@pytest.mark.parametrize(("name", "settings"), [("group", {}), ("story", {"group_column": "story"})])
def test_the_column_of_groups_is_no_label(write, name: str, settings: dict[str, str]) -> None:
    rows = f"text,a,b,{name}\nx,1,0,0\ny,0,1,1\nz,1,1,1\n"
    task = load("multi_label", write({"train.csv": rows, "dev.csv": rows}), **settings)
    assert task.labels == ("a", "b")
    assert task.examples("dev")["group"][:] == ["0", "1", "1"]


def test_named_columns(write) -> None:
    folder = write({"train.csv": CSV.replace("id", "train"), "dev.csv": CSV.replace("id", "train")})
    task = load("multi_label", folder, text_column="comment", label_column="insult, toxic")
    assert task.labels == ("insult", "toxic")
    with pytest.raises(InputError, match=r"no column 'rude' \(columns: .*\)"):
        load("multi_label", folder, text_column="comment", label_column="insult,rude")
    with pytest.raises(InputError, match=r"train.csv, line 2: found '7' in 'train'; expected 0 or 1"):
        load("multi_label", folder, text_column="comment", label_column="insult,train")


@pytest.mark.parametrize("written", ["x|y", "x;y", "x, y", '"[""x"", ""y""]"'])
def test_texts_of_several_labels(written: str, write) -> None:
    cell = f'"{written}"' if "," in written and not written.startswith('"') else written
    rows = f"text,labels\na,{cell}\nb,\nc,y\n"
    assert labels_of(load("multi_label", write({"train.csv": rows, "dev.csv": rows}))) == [["x", "y"], [], ["y"]]


@pytest.mark.parametrize("written", ['{"x": 1, "y": 0}', "{'x', 'y'}", "('x', 'y')", "['x', 'y']", '["x", "y"'])
def test_texts_in_brackets_that_are_no_list_are_not_taken_apart(written: str, write) -> None:
    rows = lines({"text": "a", "labels": "x, y"}, {"text": "b", "labels": written}, {"text": "c", "labels": "y"})
    with pytest.raises(InputError, match=r"train.jsonl, line 2: found .* as labels; expected a list, such as"):
        load("multi_label", write({"train.jsonl": rows, "dev.jsonl": rows}))


def test_lists_of_the_hub(tmp_path) -> None:
    features = Features({"text": Value("string"), "labels": List(ClassLabel(names=["anger", "joy", "pride"]))})
    rows = {"text": ["a", "b", "c"], "labels": [[1], [], [0, 2]]}
    data = Dataset.from_dict(rows, features=features)
    DatasetDict({"train": data, "validation": data}).save_to_disk(tmp_path / "saved")
    task = load("multi_label", tmp_path / "saved")
    assert task.labels == ("anger", "joy", "pride")
    assert labels_of(task, "dev") == [["joy"], [], ["anger", "pride"]]


GOOD = lines({"text": "a", "labels": ["x", "y"]}, {"text": "b", "labels": ["x"]})
MISTAKES = {
    "line 1: found no labels; expected a list": lines({"text": "a"}, {"text": "b", "labels": ["x"]}),
    "line 1: found 3 (int) as labels; expected a list": lines({"text": "a", "labels": 3}, {"text": "b", "labels": ["x"]}),
    "line 1: found the label 'x' twice; expected each once": lines({"text": "a", "labels": ["x", "x"]}),
    "line 1: found [0, 1, 1], a 0 or 1 for each label; expected a list": lines({"text": "a", "labels": [0, 1, 1]}),
    "line 1: found no label (None); expected a class": lines({"text": "a", "labels": ["x", None]}),
    "line 1: found label 0.5 (float); expected a class": lines({"text": "a", "labels": ["x", 0.5]}),
    "line 1: found \"['x']\" as labels; expected a list": lines({"text": "a", "labels": "['x']"}),
    "found the labels x, y in each of 2 rows; expected different ones": GOOD.replace('["x"]', '["y", "x"]'),
    "found only one class ('x')": lines({"text": "a", "labels": ["x"]}, {"text": "b", "labels": []}),
    "found no label in 1 rows; expected rows with labels": lines({"text": "a", "labels": []}),
    "found the columns labels, label; expected one": lines({"text": "a", "labels": ["x"], "label": "x"}),
    "found no labels (columns: text); expected a column 'labels' with lists, or a column of 0": lines({"text": "a"}),
    "found one column of labels ('rude'); expected several": lines({"text": "a", "rude": 1}),
    "line 3: found 2 in 'rude'; expected 0 or 1": lines(
        {"text": "a", "rude": 1, "kind": 0}, {"text": "b", "rude": 0, "kind": 1}, {"text": "c", "rude": 2, "kind": 1}
    ),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_located(message: str, write) -> None:
    with pytest.raises(InputError) as error:
        load("multi_label", write({"train.jsonl": MISTAKES[message], "dev.jsonl": GOOD}))
    assert str(error.value).split("train.jsonl", 1)[1].lstrip(",: ").startswith(message)
    assert "Fix: " in str(error.value)


def test_a_label_that_the_train_file_lacks(write) -> None:
    dev = lines({"text": "a", "labels": ["x", "z"]})
    with pytest.raises(InputError, match=r"dev.jsonl, line 1: found label 'z'; expected a class of the train file: x, y"):
        load("multi_label", write({"train.jsonl": GOOD, "dev.jsonl": dev}))


def test_labels_of_which_nothing_can_be_learned_are_told(write, caplog: pytest.LogCaptureFixture) -> None:
    rows = "text,a,b,c,d\nx,1,0,1,0\ny,1,0,0,1\n"
    with caplog.at_level(logging.WARNING):
        load("multi_label", write({"train.csv": rows, "dev.csv": rows}))
    assert "train.csv: no row has b, of which nothing can be learned" in caplog.text
    assert "exactly one label" not in caplog.text
    assert "train.csv: every row has a, of which nothing can be learned" in caplog.text


def test_rows_of_one_label_each_are_told(write, caplog: pytest.LogCaptureFixture) -> None:
    rows = "text,toxic,label\na,1,x\nb,0,y\n"
    with caplog.at_level(logging.WARNING):
        load("multi_label", write({"train.csv": rows, "dev.csv": rows}), label_column="toxic")
    assert "train.csv: every row has exactly one label, which --task classification learns as such" in caplog.text
