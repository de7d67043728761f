"""Tokens and tags: CoNLL files, JSON Lines and the hub's lists, IOB1 and IOB2, and mistakes by file and line."""

import gzip
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from optkit.core.errors import InputError
from optkit.tasks.data.iob import entities, type_of
from optkit.tasks.registry import load
from optkit.tasks.token_classification import TokenClassification

DEV = "Bonn\tB-loc\n"
IOB1 = "Bonn I-loc\nAda I-per\nB. I-per\n\nKurt I-per\nEva B-per\nin O\nRom I-loc\n"
IOB2 = [["B-loc", "B-per", "I-per"], ["B-per", "B-per", "O", "B-loc"]]


def tags_of(task: TokenClassification, split: str = "train") -> list[list[str]]:
    return [[task.labels[tag] for tag in tags] for tags in task.examples(split)["tags"][:]]


def read(
    write: Callable[..., Path], train: str | bytes, dev: str = DEV, ending: str = "conll", **settings
) -> TokenClassification:
    return load("token_classification", write({f"train.{ending}": train, f"dev.{ending}": dev}), **settings)


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("O B-a I-a O", [("a", 1, 3)]),
        ("B-a B-a I-a", [("a", 0, 1), ("a", 1, 3)]),
        ("I-a I-b I-b", [("a", 0, 1), ("b", 1, 3)]),
        ("B-a I-b O I-b", [("a", 0, 1), ("b", 1, 2), ("b", 3, 4)]),
        ("B-a-b I-a-b", [("a-b", 0, 2)]),
        ("O O", []),
    ],
)
def test_entities_are_those_of_conlleval(tags: str, found: list) -> None:
    assert entities(tags.split()) == found


def test_the_type_of_a_tag_however_it_is_written() -> None:
    assert [type_of(tag) for tag in ("B-PER", "i_per", "b loc", "Bonn")] == ["PER", "per", "loc", "Bonn"]


@pytest.mark.parametrize("ending", ["conll", "tsv", "txt", "iob", "iob2", "bio"])
def test_a_file_of_conll(ending: str, write) -> None:
    train = "-DOCSTART- -X- O\n\nAda\tNN\tB-per\nB.\tNN\tI-per\r\n\t\n\nin\tIN\tO\nNew York\tNN\tB-loc\n"
    task = read(write, train, "Rom\tB-loc", ending)
    assert task.labels == ("O", "B-loc", "I-loc", "B-per", "I-per")
    assert task.examples("train")["tokens"][:] == [["Ada", "B."], ["in", "New York"]]
    assert task.examples("train")["text"][:] == ["Ada B.", "in New York"]
    assert tags_of(task) == [["B-per", "I-per"], ["O", "B-loc"]]


def test_blanks_may_separate_and_comments_are_counted(write, caplog: pytest.LogCaptureFixture) -> None:
    train = "# id 1\tdomain=en\nAda _ _ B-per\n# _ _ O\n\n# _ _ O\nx\u2028y _ _ O\n"
    with caplog.at_level(logging.INFO):
        task = read(write, train, "Bonn B-per\n")
    assert task.examples("train")["tokens"][:] == [["Ada", "#"], ["#", "x\u2028y"]]
    assert "train.conll: 1 lines are comments" in caplog.text
    task = read(write, "# of a person B-per\nAda B-per\n\n# O\n", "Bonn B-per\n")  # as many columns as others: a token
    assert task.examples("train")["tokens"][:] == [["Ada"], ["#"]]


def test_a_packed_file_and_shards(tmp_path: Path) -> None:
    (tmp_path / "train-1.conll.gz").write_bytes(gzip.compress(b"Ada\tB-per\n"))
    (tmp_path / "train-2.conll").write_text("Bonn\tB-loc\n\nin\tO\nBonn\tI-per\n")
    (tmp_path / "dev.conll").write_text(DEV)
    with pytest.raises(InputError, match=r"train-2\.conll, line 4: found I-per after O; expected B-per"):
        load("token_classification", tmp_path)


def test_json_lines_and_their_columns(write) -> None:
    row = json.dumps({"words": ["Ada", "in", "Bonn"], "ner": ["B-per", "O", "B-loc"], "id": 7})
    settings = {"text_column": "words", "label_column": "ner"}
    task = read(write, row, row, "jsonl", **settings)
    assert task.examples("dev")["tokens"][:] == [["Ada", "in", "Bonn"]]
    assert tags_of(task, "dev") == [["B-per", "O", "B-loc"]]


@pytest.mark.parametrize("kind", ["saved", "parquet"])
def test_lists_of_classes_as_the_hub_has_them(kind: str, tmp_path: Path) -> None:
    names = ["O", "B-per", "I-per", "B-loc", "I-loc"]
    kinds = {"tokens": List(Value("string")), "chunk_tags": List(ClassLabel(names=["B-NP", "I-NP"]))}
    features = Features({**kinds, "ner_tags": List(ClassLabel(names=names))})
    columns = {"tokens": [["Ada", "B."], ["Bonn"]], "chunk_tags": [[0, 1], [0]], "ner_tags": [[1, 2], [3]]}
    rows = Dataset.from_dict(columns, features=features)
    if kind == "saved":
        DatasetDict({"train": rows, "validation": rows}).save_to_disk(str(tmp_path / "data"))
    else:
        for split in ("train", "validation"):
            rows.to_parquet(str(tmp_path / "data" / f"{split}.parquet"))
    task = load("token_classification", tmp_path / "data")
    assert list(task.labels) == names
    assert tags_of(task) == [["B-per", "I-per"], ["B-loc"]]


def test_iob1_is_read_as_iob2(write, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        task = read(write, IOB1, "Bonn I-loc\n")
    assert tags_of(task) == IOB2
    assert "tags of IOB1, where I- begins an entity" in caplog.text


def test_types_that_differ_in_capitals_alone_are_told(write, caplog: pytest.LogCaptureFixture) -> None:
    read(write, "Ada B-Per\nB. I-Per\nBonn B-loc\nEva B-per\n")
    assert "train.conll: Per and per are different classes" in caplog.text


def test_types_that_look_alike_are_told_apart(write, caplog: pytest.LogCaptureFixture) -> None:
    read(write, "Ada B-p\u00e9r\nB. I-p\u00e9r\nBonn B-loc\nEva B-pe\u0301r\n")
    assert r"train.conll: 'pe\u0301r' and 'p\xe9r' are different classes" in caplog.text


def test_a_type_has_both_tags_though_one_does_not_occur(write) -> None:
    assert read(write, "Ada\tB-per\nBonn\tB-loc\n").labels == ("O", "B-loc", "I-loc", "B-per", "I-per")


def test_the_limit_keeps_the_places_of_rows(write, tokenizer) -> None:
    words = ["w", "v"] * 9
    words[11] = "\u200b"
    train = "\n\n".join(f"{word}\tB-loc" for word in words)
    for limit in (None, 17):
        task = read(write, train, limit_train=limit)
        with pytest.raises(InputError, match=r"train\.conll, line 23: the tokenizer makes nothing of the token '\\u200b'"):
            task.encode("train", tokenizer)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("Ada\tB-per\nin\n", "train.conll, line 2: found one column, 'in'; expected a token and its tag"),
        ("Ada\tX\tB-per\n\nin\tO\n", "train.conll, line 3: found 2 columns; expected 3, as in the first line"),
        ("Ada\tB-per\n\tO\n", "train.conll, line 2: found empty text in 'tokens'"),
        ("Ada\tB-per\nin\tPREP\n", "train.conll, line 2: found the tag 'PREP'; expected O, or B- or I- and a type"),
        ("Ada\tS-per\n", "train.conll, line 1: found the tag 'S-per'"),
        ("Ada\tB-\n", "train.conll, line 1: found the tag 'B-'"),
        ("Ada\tB-per\nin\tO\nRom\tI-loc\n", "train.conll, line 3: found I-loc after O; expected B-loc, as most entities"),
        ("Ada\tB-per\nRom\tI-loc\n", "train.conll, line 2: found I-loc after B-per; expected B-loc"),
        ("Ada\tB-per\n\nRom\tI-loc\n", "line 3: found I-loc after the begin of a sentence; expected B-loc"),
        (IOB1 + "\nx O\nUlm B-loc\n", "line 11: found B-loc after O; expected I-loc, as most entities of the data begin"),
        ("in\tO\n", "train.conll: found no entity in 1 rows; expected tags other than O"),
        ("-DOCSTART-\tO\n", "train.conll: found no sentence"),
        (b"Ada\tB-per\n\xe4\tO\n", "train.conll, line 2: found byte 0xe4, which is not UTF-8"),
        ("Ada\tB-per\n", "dev.conll, line 1: found the type 'loc'; expected one of the train file: per"),
    ],
)
def test_a_mistake_is_named_with_its_line(train: str | bytes, message: str, write) -> None:
    with pytest.raises(InputError) as error:
        read(write, train, DEV.replace("\t", " ") if isinstance(train, str) and train.startswith(IOB1) else DEV)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "train.jsonl, line 2: found 2 tokens and 1 tags; expected a tag for each"),
        ({"tokens": [], "tags": []}, "train.jsonl, line 2: found no tokens; expected one or more"),
        ({"tokens": "a b", "tags": ["O"]}, "train.jsonl, line 2: found 'a b' in 'tokens'; expected a list"),
        ({"tokens": ["a"], "tags": None}, "train.jsonl, line 2: found None in 'tags'; expected a list"),
        ({"tokens": ["a", 1990], "tags": ["O", "O"]}, "train.jsonl, line 2, token 2: found 1990 (int) in 'tokens'"),
        ({"tokens": ["a", " "], "tags": ["O", "O"]}, "train.jsonl, line 2, token 2: found empty text in 'tokens'"),
        ({"tokens": ["a"], "tags": [3]}, "train.jsonl, line 2, token 1: found the tag 3; expected O, or B- or I-"),
        ({"tokens": ["a", "b"], "tags": ["O", "I-x"]}, "train.jsonl, line 2, token 2: found I-x after O; expected B-x"),
    ],
)
def test_a_mistake_in_json_is_named_with_its_line_and_token(row: dict, message: str, write) -> None:
    good = json.dumps({"tokens": ["Bonn"], "tags": ["B-loc"]})
    with pytest.raises(InputError) as error:
        read(write, f"{good}\n{json.dumps(row)}\n", good, "jsonl")
    assert message in str(error.value)


def test_columns_that_are_missing_or_meant_twice(write) -> None:
    row = json.dumps({"tokens": ["a"], "words": ["a"], "tags": ["B-x"]})
    with pytest.raises(InputError, match=r"found the columns tokens, words; .* Fix: name it: --text-column NAME"):
        read(write, row, row, "jsonl")
    with pytest.raises(InputError, match=r"found no such column \(columns: tokens, words, tags\); expected one of 'pos'"):
        read(write, row, row, "jsonl", text_column="words", label_column="pos")
    with pytest.raises(InputError, match="takes no --text-pair-column words"):
        read(write, row, row, "jsonl", text_pair_column="words")
