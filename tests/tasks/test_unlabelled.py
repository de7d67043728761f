"""Texts without labels: read from several kinds of files, kept apart from dev, refused where nothing learns from them."""

import gzip
import logging
from pathlib import Path

import pytest
from transformers import BertTokenizerFast

from optkit.core.errors import InputError
from optkit.tasks import registry, unlabelled
from optkit.tasks.base import Task

TEXTS = ["the plot", "a dull film , with a story"]


def load(data: Path, file: Path, **settings: str) -> Task:
    return registry.load("classification", data, unlabelled=str(file), **settings)


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("more.txt", "the plot\n\na dull film , with a story\n"),
        ("more.txt.gz", "the plot\na dull film , with a story"),
        ("more.tsv", "sentence\tother\nthe plot\t1\na dull film , with a story\t2\n"),
        ("more.csv", 'text\nthe plot\n"a dull film , with a story"\n'),
        ("more.jsonl", '{"text": "the plot"}\n{"text": "a dull film , with a story"}\n'),
    ],
)
def test_files_of_several_kinds(name: str, text: str, tiny_data: Path, tmp_path: Path) -> None:
    assert load(tiny_data, written(tmp_path, name, text)).unlabelled == (tuple(TEXTS),)


def test_features_have_inputs_and_no_targets(tiny_data: Path, tmp_path: Path, tiny_tokenizer: BertTokenizerFast) -> None:
    task = load(tiny_data, written(tmp_path, "more.txt", "\n".join([*TEXTS, "film " * 50])))
    features = unlabelled.encode(task, tiny_tokenizer)
    assert features is not None
    assert set(features.column_names) == {*tiny_tokenizer.model_input_names, "length"}
    assert features["length"][:] == [4, 9, 16]
    assert task.fingerprint() == registry.load("classification", tiny_data).fingerprint(), "the baseline stays as it is"


def test_columns_of_labels_and_groups_are_those_of_the_training_rows(tmp_path: Path) -> None:
    rows = "review\tverdict\tby\n" + "".join(f"text {number}\t{number % 2}\t{number % 5}\n" for number in range(20))
    for split in ("train", "dev"):
        written(tmp_path, f"{split}.tsv", rows)
    file = written(tmp_path, "more.tsv", "review\nthe plot\n")
    columns = {"text_column": "review", "label_column": "verdict", "group_column": "by"}
    assert load(tmp_path, file, **columns).unlabelled == (("the plot",),)


def test_without_a_file_there_are_none(tiny_task: Task, tiny_tokenizer: BertTokenizerFast) -> None:
    assert unlabelled.encode(tiny_task, tiny_tokenizer) is None


def test_rows_of_dev_are_left_out_and_counted(tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dev = registry.load("classification", tiny_data).texts("dev")[0][0]
    file = written(tmp_path, "more.txt", f"{dev}\nthe plot\n{dev.upper()} !\nthe plot\n")
    with caplog.at_level(logging.INFO):
        assert load(tiny_data, file).unlabelled == (("the plot",),)
    assert "2 of 4 texts are left out, they are rows of the dev split" in caplog.text
    assert "1 of 4 texts are left out, they are there already" in caplog.text
    with pytest.raises(InputError, match="rows of the dev split alone"):
        load(tiny_data, written(tmp_path, "dev.txt", dev))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("more.docx", "the plot", "the ending '.docx'"),
        ("more.csv", "title\nthe plot\n", "no column with text"),
        ("more.csv", "sentence1,sentence2\nthe plot,a film\n", r"2 columns with text \(sentence1, sentence2\); expected 1"),
        ("more.jsonl", '{"text": "the plot"}\n{"text": null}\n', "line 2.*nothing in 'sentence'"),
    ],
)
def test_files_that_do_not_fit(name: str, text: str, expected: str, tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=expected):
        load(tiny_data, written(tmp_path, name, text))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("more.jsonl", '{"tokens": ["the", "plot"], "tags": ["O", "O"]}\n{"tokens": ["a", "film"]}\n'),
        ("more.conll", "the\tO\nplot\tO\n\na\tO\nfilm\tO\n"),
    ],
)
def test_sentences_of_tokens_are_texts(name: str, text: str, tmp_path: Path) -> None:
    task = registry.load("sample_token_classification", unlabelled=str(written(tmp_path, name, text)))
    assert task.unlabelled == (("the plot", "a film"),)


def test_a_file_that_is_not_there(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load(tiny_data, tmp_path / "none.txt")


def test_a_task_that_learns_from_more_than_texts_refuses_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="task 'sample_qa' takes none"):
        registry.load("sample_qa", unlabelled=str(written(tmp_path, "more.txt", "the plot")))


@pytest.mark.parametrize("name", ["sample_regression", "sample_multi_label", "sample_token_classification"])
def test_tasks_whose_teachers_answer_texts_take_them(name: str, tmp_path: Path) -> None:
    assert registry.load(name, unlabelled=str(written(tmp_path, "more.txt", "\n".join(TEXTS)))).unlabelled == (tuple(TEXTS),)
