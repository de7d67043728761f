"""Files of the two splits: their names, shards, and what is left unread."""

import json
import logging

import pytest

from optkit.core.errors import InputError
from optkit.tasks.registry import load

ROWS = "text\tlabel\ngood\tyes\nbad\tno\n"
MORE = "text\tlabel\nfine\tyes\n"


@pytest.mark.parametrize("dev", ["dev", "validation", "valid", "val", "eval", "test", "Validation"])
def test_names_of_the_dev_split(dev: str, write) -> None:
    assert load("classification", write({"train.tsv": ROWS, f"{dev}.tsv": MORE})).examples("dev")["text"][:] == ["fine"]


def test_a_test_file_stays_unread_beside_a_dev_file_and_that_is_said(write, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        task = load("classification", write({"train.tsv": ROWS, "dev.tsv": MORE, "test.tsv": ROWS}))
    assert len(task.examples("dev")) == 1
    assert "scores are of 'dev'; test is not read" in caplog.text


def test_shards_are_joined_in_order(write) -> None:
    files = {f"train-0000{i}-of-00002.tsv": text for i, text in enumerate((ROWS, MORE))}
    task = load("classification", write({**files, "validation-00000-of-00001.tsv": MORE}))
    assert task.examples("train")["text"][:] == ["good", "bad", "fine"]


def test_a_mistake_in_a_shard_is_located(write) -> None:
    files = {"train_1.tsv": ROWS, "train_2.tsv": "text\tlabel\n \tyes\n", "dev.tsv": MORE}
    with pytest.raises(InputError, match=r"file train_2\.tsv, line 2: found empty text"):
        load("classification", write(files))


def test_a_missing_shard_is_named(write) -> None:
    with pytest.raises(InputError, match="found 1 of 2 shards"):
        load("classification", write({"train-00000-of-00002.tsv": ROWS, "dev.tsv": MORE}))


def test_shards_of_other_columns_are_refused(write) -> None:
    files = {"train_1.tsv": ROWS, "train_2.tsv": "sentence\tlabel\nx\tyes\n", "dev.tsv": MORE}
    with pytest.raises(InputError, match=r"train_2\.tsv: found columns sentence, label"):
        load("classification", write(files))


def test_shards_as_the_hub_names_them(write) -> None:
    files = {f"train-0000{i}-of-00002-8a3c5c4ff3d27a30.tsv": text for i, text in enumerate((ROWS, MORE))}
    task = load("classification", write({**files, "validation-00000-of-00001-0123456789abcdef.tsv": MORE}))
    assert (len(task.examples("train")), len(task.examples("dev"))) == (3, 1)


def test_a_shard_that_comes_twice_is_not_read_twice(write) -> None:
    files = {"train-0-of-2.tsv": ROWS, "train-0-of-2.csv": "text,label\nfine,yes\n", "dev.tsv": MORE}
    with pytest.raises(
        InputError, match=r"found 2 train files \(train-0-of-2\.csv, train-0-of-2\.tsv\); expected one, or shards"
    ):
        load("classification", write(files))


def test_a_file_beside_shards_is_ambiguous(write) -> None:
    with pytest.raises(InputError, match=r"found 2 train files \(train-1\.tsv, train\.tsv\)"):
        load("classification", write({"train.tsv": ROWS, "train-1.tsv": ROWS, "dev.tsv": MORE}))


def test_folders_of_splits_and_a_data_folder(tmp_path) -> None:
    for split, text in (("train", ROWS), ("dev", MORE)):
        (tmp_path / "a" / split).mkdir(parents=True)
        (tmp_path / "a" / split / "part-0.tsv").write_text(text)
        (tmp_path / "b" / "data").mkdir(parents=True, exist_ok=True)
        (tmp_path / "b" / "data" / f"{split}-00000-of-00001.tsv").write_text(text)
    for folder in ("a", "b"):
        task = load("classification", tmp_path / folder)
        assert (len(task.examples("train")), len(task.examples("dev"))) == (2, 1)


def test_what_else_lies_beside_a_data_folder_does_not_hide_it(tmp_path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "dataset_infos.json").write_text("{}")
    for split, text in (("train", ROWS), ("dev", MORE)):
        (tmp_path / "data" / f"{split}.tsv").write_text(text)
    assert len(load("classification", tmp_path).examples("train")) == 2


def test_of_several_configurations_one_is_to_be_given(tmp_path) -> None:
    for language in ("de", "en"):
        (tmp_path / language).mkdir()
        (tmp_path / language / "train.tsv").write_text(ROWS)
    with pytest.raises(InputError, match=rf"found no train file .*: de, en\).*Fix: give a folder .*--data {tmp_path}/de"):
        load("classification", tmp_path)


@pytest.mark.parametrize("content", [[{"text": "a", "label": 0}, {"text": "b", "label": 1}], {"version": 1, "data": None}])
def test_json_in_one_value(content, write) -> None:
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    content = rows if isinstance(content, list) else {**content, "data": rows}
    folder = write({"train.json": json.dumps(content, indent=1), "dev.json": json.dumps(rows[0])})
    task = load("classification", folder)
    assert (task.examples("train")["text"][:], task.examples("dev")["text"][:]) == (["a", "b"], ["a"])


def test_a_row_of_an_array_that_is_no_object_is_located(write) -> None:
    with pytest.raises(InputError, match=r"train\.json, row 2: found 5; expected an object"):
        load("classification", write({"train.json": '[{"text": "a", "label": 0}, 5]', "dev.tsv": MORE}))


def test_packed_files(write) -> None:
    import gzip

    folder = write({"train.tsv.gz": gzip.compress(ROWS.encode()), "dev.tsv": MORE})
    assert len(load("classification", folder).examples("train")) == 2
    with pytest.raises(InputError, match=r"train\.tsv\.gz: found a file that cannot be unpacked"):
        load("classification", write({"train.tsv.gz": b"text,label\n", "dev.tsv": MORE}))


def test_another_delimiter_is_told(write) -> None:
    with pytest.raises(InputError, match=r"train\.csv, line 1: found one column, 'text;label', with semicolons in it"):
        load("classification", write({"train.csv": "text;label\na;b\n", "dev.tsv": MORE}))


def test_blanks_before_quotes_are_warned_of_or_refused(write, caplog) -> None:
    rows = 'text,label\n"a, b", "yes"\nc, no\n'
    assert load("classification", write({"train.csv": rows, "dev.tsv": 'text\tlabel\na\t"yes"\n'})).labels == ('"yes"', "no")
    assert "train.csv: 1 fields have a blank before their quotes, which are text then, and stay" in caplog.text
    with pytest.raises(
        InputError, match=r'columns in quotes \("label"\), a blank before them.*no blank between a comma and a'
    ):
        load("classification", write({"train.csv": rows.replace("label", ' "label"'), "dev.tsv": MORE}))


def test_tsv_as_pandas_writes_it_is_warned_of_or_refused(write, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        load("classification", write({"train.tsv": ROWS + '"he said ""no"""\tno\n', "dev.tsv": MORE}))
    assert "1 fields look quoted, as pandas writes them" in caplog.text
    with pytest.raises(InputError, match=r"columns in quotes \(\"text\", \"label\"\).*save it as \.csv"):
        load("classification", write({"train.tsv": '"text"\t"label"\n"a"\t"x"\n', "dev.tsv": MORE}))


@pytest.mark.parametrize("row", ["[" * 100_000, '{"text": "a", "label": ' + "9" * 5000 + "}"])
def test_json_that_python_cannot_read_is_located(row: str, write) -> None:
    with pytest.raises(InputError, match=r"train\.jsonl, line 1: found (a number of|more than)"):
        load("classification", write({"train.jsonl": row + "\n", "dev.tsv": MORE}))


def test_an_unknown_setting_lists_those_there_are(write) -> None:
    with pytest.raises(InputError, match="found the setting epochs, expected some of data, limit_train, max_length"):
        load("classification", write({"train.tsv": ROWS, "dev.tsv": MORE}), epochs=1)
