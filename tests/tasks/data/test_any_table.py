"""Whatever lies in the place of a table is read, or refused by its name: never a traceback, never a hang."""

import csv
import gzip
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from optkit.core.errors import InputError, OptkitError
from optkit.tasks.data import reading
from optkit.tasks.registry import load
from tests import damage

GOOD = "text\tlabel\na\tx\nb\ty\n"
ROWS = [{"text": f"word {number}", "label": "xy"[number % 2]} for number in range(6)]


def as_parquet(columns: Any, names: list[str] | None = None, metadata: dict[bytes, bytes] | None = None) -> bytes:
    table = pyarrow.table(columns, names=names) if names else pyarrow.table(columns)
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table.replace_schema_metadata(metadata), sink)
    return sink.getvalue().to_pybytes()


def as_csv(rows: list[dict[str, Any]], delimiter: str) -> str:
    made = io.StringIO()
    writer = csv.writer(made, delimiter=delimiter, lineterminator="\n")
    writer.writerows([list(rows[0]), *(list(map(str, row.values())) for row in rows)])
    return made.getvalue()


def written(rows: list[dict[str, Any]], ending: str) -> bytes:
    if ending in (".csv", ".tsv"):
        return as_csv(rows, "," if ending == ".csv" else "\t").encode(errors="replace")
    if ending == ".parquet":
        return as_parquet({name: [row[name] for row in rows] for name in rows[0]})
    return ("\n".join(map(json.dumps, rows)) if ending == ".jsonl" else json.dumps({"data": rows})).encode()


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    """A name and what lies under it: damaged bytes, an odd value in a good table, or odd cells."""
    ending = draw(st.sampled_from(list(reading._READERS)))
    kind = draw(st.sampled_from(["bytes", "value", "cells"]))
    if kind == "value" and ending.startswith(".json"):
        tree = draw(damage.misfits(ROWS))
        return f"train{ending}", tree
    if kind == "cells" and ending != ".parquet":
        rows = [{**row, draw(st.sampled_from(["text", "label"])): draw(damage.values)} for row in ROWS]
        return f"train{ending}", written(rows, ending)
    content = draw(damage.damaged(written(ROWS, ending)))
    packed = draw(st.booleans())
    return f"train{ending}{'.gz' * packed}", gzip.compress(content) if packed else content


@pytest.mark.slow
@pytest.mark.doors
@given(file=files())
def test_any_file_is_read_or_refused_by_its_name(file: tuple[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, (name, content) = tmp_path_factory.mktemp("table"), file
    (folder / "dev.tsv").write_text(GOOD)
    (folder / name).write_bytes(content)
    try:
        task = load("classification", folder)
    except OptkitError as error:
        assert damage.is_told(error, folder / name, folder / "dev.tsv")
    else:
        assert len(task.fingerprint()) == 64
        assert all(label.encode() for label in task.labels)


MISTAKES = {
    "train.csv: found an empty file": ("train.csv", b"\xef\xbb\xbf"),
    "train.jsonl: found an empty file": ("train.jsonl", b"\xef\xbb\xbf\n"),
    "train.json: found a number of 5,000 digits": ("train.json", b'[{"text": "a", "label": ' + b"9" * 5000 + b"}]"),
    "train.json: found more than 64 levels of brackets": ("train.json", b"[" * 160_000),
    "train.jsonl, line 2: found half of a surrogate pair in 'label': '\\ud800'": (
        "train.jsonl",
        b'{"text": "a", "label": "x"}\n{"text": "b", "label": "\\ud800"}',
    ),
    "train.jsonl, line 1: found the name 'text' twice in an object": (
        "train.jsonl",
        b'{"text": "a", "text": "b", "label": "x"}',
    ),
    "train.parquet: found column 'text' twice": (
        "train.parquet",
        as_parquet([["a"], ["b"], ["x"]], ["text", "text", "label"]),
    ),
    "train.parquet, row 1: found [('a', 1)] (list) in 'text'; expected text": (
        "train.parquet",
        as_parquet(
            {"text": pyarrow.array([[("a", 1)], []], pyarrow.map_(pyarrow.string(), pyarrow.int64())), "label": [0, 1]}
        ),
    ),
    "train.parquet: found the class 'a' twice": (
        "train.parquet",
        as_parquet(
            {"text": ["a", "b"], "label": [0, 1]},
            metadata={
                b"huggingface": b'{"info": {"features": {"label": {"names": ["a", "b", "a"], "_type": "ClassLabel"}}}}'
            },
        ),
    ),
    "train.csv, line 3: found no label ('NaN')": ("train.csv", b"text,label\na,x\nb,NaN\nc,y\n"),
    "train.csv, line 2: found no label ('-inf')": ("train.csv", b"text,label\na,-inf\nb,1\n"),
    "train.csv: found the same number as several classes (01 and 1)": ("train.csv", b"text,label\na,1\nb,01\nc,2\n"),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_located(message: str, write: Callable[..., Path]) -> None:
    name, content = MISTAKES[message]
    folder = write({name: content, "dev.tsv": GOOD})
    with pytest.raises(InputError) as error:
        load("classification", folder)
    assert f"{folder}/{message}" in str(error.value)
    assert "Fix: " in str(error.value)


def test_columns_that_nobody_asks_for_may_hold_anything(write: Callable[..., Path]) -> None:
    more = {
        "map": pyarrow.array([[("a", 1)], []], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
        "binary": [b"\xff", b""],
    }
    content = as_parquet({"text": ["a", "b"], "label": ["x", "y"], **more})
    assert load("classification", write({"train.parquet": content, "dev.tsv": GOOD})).labels == ("x", "y")


@pytest.mark.parametrize(
    "metadata", [b"\xff", b"[]", b"[" * 9999, b'{"info": {"features": {"label": {"_type": "ClassLabel"}}}}']
)
def test_metadata_of_another_kind_is_told(
    metadata: bytes, write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    content = as_parquet({"text": ["a", "b"], "label": ["x", "y"]}, metadata={b"huggingface": metadata})
    with caplog.at_level(logging.WARNING):
        load("classification", write({"train.parquet": content, "dev.tsv": GOOD}))
    assert "the names of its classes are not known" in caplog.text
    assert "train.parquet: " in caplog.text


def test_what_unpacks_to_more_than_is_allowed_is_refused(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LARGEST", 2**20)
    monkeypatch.setattr("optkit.tasks.data.parquet_rows.LARGEST", 2**20)
    packed = as_parquet({"text": ["word " * 1000] * 2000, "label": ["x", "y"] * 1000})
    assert len(packed) < 2**16
    for name, content in {"train.csv.gz": gzip.compress(b"a" * 2**21), "train.parquet": packed}.items():
        folder = write({name: content, "dev.tsv": GOOD})
        with pytest.raises(InputError, match=rf"{name}: found more than 1,048,576 bytes when unpacked"):
            load("classification", folder)
        (folder / name).unlink()


def test_numbers_beside_names_and_files_that_are_not_read_are_said(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    rows = "text,label\na,1\nb,2\nc,other\n"
    with caplog.at_level(logging.WARNING):
        load("classification", write({"train.csv": rows, "train_augmented.csv": rows, "dev.csv": rows}))
    assert "some classes are numbers (1, 2), others names (other)" in caplog.text
    assert "train_augmented.csv is not read" in caplog.text


def test_a_label_of_thousands_of_digits_is_a_name(write: Callable[..., Path]) -> None:
    rows = f"text,label\na,{'9' * 5000}\nb,1\n"
    assert load("classification", write({"train.csv": rows, "dev.csv": rows})).labels == ("1", "9" * 5000)
