"""Readers of TSV, CSV, JSON Lines and Parquet: text is kept as it is, and errors point at the line."""

import json
from decimal import Decimal

import pandas
import pyarrow
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from pyarrow import parquet

from optkit.core.errors import InputError
from optkit.tasks.data import reading
from optkit.tasks.registry import load

ODD = [
    'an unbalanced " quote',
    '"quoted"',
    "null",
    "NA",
    "nan",
    "007",
    "True",
    "naïve café — 東京 🙂",
    "line\u2028separator and \x85 next line",
    "  blanks around ",
    "back\\slash \\t",
    "#not a comment",
]
LABELS = [str(i % 2) for i in range(len(ODD))]
GOOD = "sentence\tlabel\ngood\t1\nbad\t0\n"


def as_tsv() -> bytes:
    rows = zip(["sentence", *ODD], ["label", *LABELS], strict=True)
    return "".join(f"{text}\t{label}\n" for text, label in rows).encode()


def as_csv() -> bytes:
    quoted = ['"' + text.replace('"', '""') + '"' for text in ["sentence", *ODD]]
    return "".join(f"{text},{label}\r\n" for text, label in zip(quoted, ["label", *LABELS], strict=True)).encode()


def as_json_lines() -> bytes:
    rows = [{"sentence": text, "label": int(label)} for text, label in zip(ODD, LABELS, strict=True)]
    return b"\n\n".join(json.dumps(row).encode() for row in rows)


def as_parquet() -> bytes:
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table({"sentence": ODD, "label": [int(label) for label in LABELS]}), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        ("tsv", as_tsv()),
        ("csv", as_csv()),
        ("jsonl", as_json_lines()),
        ("json", as_json_lines()),
        ("parquet", as_parquet()),
        ("TSV", b"\xef\xbb\xbf" + as_tsv()),
    ],
)
def test_every_format_keeps_odd_texts(ending: str, content: bytes, write) -> None:
    task = load("classification", write({f"train.{ending}": content, f"validation.{ending}": content}))
    for split in ("train", "dev"):
        assert task.examples(split)["sentence"][:] == ODD
        assert task.examples(split)["label"][:] == [i % 2 for i in range(len(ODD))]
    assert task.examples("dev").features["sentence"] == Value("string")


def test_the_two_files_may_differ_in_format(write) -> None:
    assert len(load("classification", write({"train.csv": as_csv(), "dev.jsonl": as_json_lines()})).examples("dev"))


def test_windows_line_ends_and_a_missing_last_one(write) -> None:
    folder = write({"train.tsv": "text\tlabel\r\ngood\tyes\r\nbad\tno", "dev.tsv": "text\tlabel\nso\tno\n\n"})
    assert load("classification", folder).examples("train").to_dict() == {"text": ["good", "bad"], "label": [1, 0]}


def test_parquet_and_its_class_names(tmp_path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["spam", "ham"])})
    for split in ("train", "dev"):
        rows = Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
        rows.to_parquet(str(tmp_path / f"{split}.parquet"))
    task = load("classification", tmp_path)
    assert task.labels == ("spam", "ham")
    assert task.examples("train")["label"][:] == [1, 0]


def test_a_quoted_field_over_several_lines_counts_where_it_starts(write) -> None:
    folder = write({"train.csv": 'text,label\n"two\nlines",1\nshort\n', "dev.csv": ""})
    with pytest.raises(InputError, match=r"train\.csv, line 4: found 1 columns; expected 2 \(text, label\)"):
        load("classification", folder)
    assert reading.read([write({"dev.csv": 'text,label\n\n"two\nlines",1\nlast,0\n'}) / "dev.csv"]).lines == [3, 5]


MISTAKES = {
    "train.tsv: found an empty file; expected data. Fix: write the data into it": ("train.tsv", b" \n"),
    "train.tsv: found a header (sentence, label) and no rows; expected a line that names the columns, and one row": (
        "train.tsv",
        b"sentence\tlabel\n",
    ),
    "train.tsv: found lines that end with a carriage return alone; expected line feeds. Fix: end lines with": (
        "train.tsv",
        b"text\tlabel\ra\t1\r",
    ),
    "train.tsv, line 3: found byte 0xe9, which is not UTF-8; expected text in UTF-8. Fix: save the file as UTF-8": (
        "train.tsv",
        "sentence\tlabel\ngood\t1\ncaf\xe9\t0\n".encode("latin-1"),
    ),
    "train.tsv, line 3: found 3 columns; expected 2 (sentence, label). Fix: a tab within the text must become": (
        "train.tsv",
        b"sentence\tlabel\ngood\t1\nb\tad\t0\n",
    ),
    "train.tsv, line 2: found 1 columns; expected 2 (sentence, label)": ("train.tsv", b"sentence\tlabel\ngood\n"),
    "train.tsv, line 1: found column 'label' twice; expected every name once": ("train.tsv", b"label\tlabel\n1\t1\n"),
    "train.csv, line 3: found an unreadable row (unexpected end of data)": (
        "train.csv",
        b'sentence,label\ngood,1\n"bad,0\nugly,0\n',
    ),
    "train.csv, line 2: found an unreadable row (',' expected after '\"')": ("train.csv", b'text,label\n"a" b,1\n'),
    "train.tsv, line 2: found an unreadable row (new-line character": ("train.tsv", b"text\tlabel\na\rb\t1\n"),
    'train.jsonl, line 2: found no JSON (Expecting \',\' delimiter at column 16): \'{"text": "bad" "label": 0}\'': (
        "train.jsonl",
        b'{"text": "good", "label": 1}\n{"text": "bad" "label": 0}\n',
    ),
    "train.jsonl, line 1: found ['good', 1]; expected one JSON object per line. Fix: write each row as {": (
        "train.jsonl",
        b'["good", 1]\n',
    ),
    "train.jsonl, line 3: found empty text in 'text'; expected text. Fix: write the text, or remove the row": (
        "train.jsonl",
        b'{"text": "good", "label": 1}\n\n{"text": " ", "label": 0}\n',
    ),
    "train.jsonl, line 2: found nothing in 'text'": ("train.jsonl", b'{"text": "a", "label": 1}\n{"label": 0}\n'),
    "train.jsonl, line 1: found 5 (int) in 'text'; expected text": (
        "train.jsonl",
        b'{"text": 5, "label": 1}\n{"text": "b", "label": 0}\n',
    ),
    "train.jsonl, line 1: found half of a surrogate pair in 'text': '\\ud83d'": (
        "train.jsonl",
        b'{"text": "\\ud83d", "label": 1}\n{"text": "b", "label": 0}\n',
    ),
    "train.parquet: found a file that cannot be read as Parquet (": ("train.parquet", b"sentence\tlabel\ngood\t1\n"),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_in_a_file_is_located(message: str, write) -> None:
    name, content = MISTAKES[message]
    folder = write({name: content, "dev.tsv": GOOD})
    with pytest.raises(InputError) as error:
        load("classification", folder)
    assert f"{folder}/{message}" in str(error.value)
    assert "Fix: " in str(error.value)


def test_a_text_may_be_longer_than_pythons_limit_of_csv(write) -> None:
    folder = write({"train.csv": f"sentence,label\n{'w ' * 100_000}end,1\nb,0\n", "dev.tsv": GOOD})
    assert len(load("classification", folder).examples("train")["sentence"][0]) == 200_003


def test_utf_16_is_told(write) -> None:
    folder = write({"train.csv": "text,label\na,1\n".encode("utf-16"), "dev.tsv": GOOD})
    with pytest.raises(InputError, match=r"line 1: found byte 0xff, which is not UTF-8.*iconv -f utf-16"):
        load("classification", folder)


def test_a_missing_header_shows(write) -> None:
    with pytest.raises(InputError, match=r"columns by the first line, which must name them: A plane\., 5\.0"):
        load("classification", write({"train.csv": "A plane.,5.0\nA man.,4.0\n", "dev.tsv": GOOD}))


def test_no_such_folder(tmp_path) -> None:
    with pytest.raises(InputError, match="nowhere: found no such folder; expected a folder with a train and a dev"):
        load("classification", tmp_path / "nowhere")


def test_a_file_is_no_folder(write) -> None:
    with pytest.raises(InputError, match=r"train\.tsv: found a file; expected a folder"):
        load("classification", write({"train.tsv": GOOD}) / "train.tsv")


def test_a_missing_file_names_what_is_there(write) -> None:
    with pytest.raises(InputError) as error:
        load("classification", write({"train.tsv": GOOD, "more.tsv": GOOD, "dev.txt": GOOD}))
    assert "found no dev file (the folder holds: dev.txt, more.tsv, train.tsv)" in str(error.value)
    assert "expected dev.{tsv,csv,jsonl,json,parquet} or validation.{tsv," in str(error.value)


def test_two_candidates(write) -> None:
    with pytest.raises(InputError, match=r"found 2 dev files \(dev\.tsv, validation\.csv\); expected one. Fix: move"):
        load("classification", write({"train.tsv": GOOD, "dev.tsv": GOOD, "validation.csv": GOOD}))


@pytest.mark.parametrize("path", ["x" * 300, "nul\0nul"])
def test_what_no_path_can_be_is_no_folder(path: str) -> None:
    with pytest.raises(InputError, match="found no such folder; expected a folder with a train and a dev file"):
        load("classification", path)


@pytest.mark.parametrize(
    "kind", [pyarrow.string_view(), pyarrow.large_string(), pyarrow.dictionary(pyarrow.int8(), pyarrow.string())]
)
def test_texts_of_any_kind_are_read_from_parquet(kind: pyarrow.DataType, tmp_path) -> None:
    rows = ["a text", "another, of more than twelve bytes"]
    for split in ("train", "dev"):
        table = pyarrow.table({"text": pyarrow.array(rows, kind), "label": ["no", "yes"]})
        parquet.write_table(table, tmp_path / f"{split}.parquet")
    assert load("classification", tmp_path).examples("train")["text"][:] == rows


def test_decimals_are_numbers(tmp_path) -> None:
    for split in ("train", "dev"):
        labels = pyarrow.array([Decimal("0.000"), Decimal("1.000"), Decimal("1" * 30)], pyarrow.decimal128(38, 3))
        values = pyarrow.array([Decimal("0.5"), Decimal("-1.25"), Decimal(2)], pyarrow.decimal128(9, 3))
        table = pyarrow.table({"text": ["a", "b", "c"], "label": labels, "value": values})
        parquet.write_table(table, tmp_path / f"{split}.parquet")
    assert load("classification", tmp_path).labels == ("0", "1", "1" * 30)
    found = load("regression", tmp_path, label_column="value").examples("train")
    assert found["label"][:] == [0.5, -1.25, 2.0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([b"neg", b"pos"], r"found label b'neg' \(bytes\).*Fix: write each class as text, or as a whole number$"),
        ([["neg"], ["pos"]], r"found label \['neg'\] \(list\).*or as a whole number; several labels of a row: --task multi"),
        ([{"a": 1}, {"a": 2}], r"found label {'a': 1} \(dict\).*Fix: write each class as text"),
        ([float("nan"), 1.0], r"found no label \(nan\).*Fix: label the row, or remove it"),
    ],
)
def test_what_to_do_about_a_label_is_of_its_kind(labels: list, message: str, tmp_path) -> None:
    for split in ("train", "dev"):
        parquet.write_table(pyarrow.table({"text": ["a", "b"], "label": labels}), tmp_path / f"{split}.parquet")
    with pytest.raises(InputError, match=message):
        load("classification", tmp_path)


@pytest.mark.parametrize("orient", ["list", "columns", "index", "split"])
def test_json_with_all_rows_in_one_object_is_told(orient: str, tmp_path) -> None:
    frame = pandas.DataFrame({"text": ["a", "b"], "label": ["no", "yes"]})
    text = json.dumps(frame.to_dict("list")) if orient == "list" else frame.to_json(orient=orient)
    for split in ("train", "dev"):
        (tmp_path / f"{split}.json").write_text(text)
    message = r"found one object \(.*\) with all rows; expected an object for each row.*to_json\(…, orient='records'\)"
    with pytest.raises(InputError, match=message):
        load("classification", tmp_path)


@pytest.mark.parametrize("kind", ["utf-16le", "utf-16be"])
def test_utf_16_without_its_mark_is_told(kind: str, tmp_path) -> None:
    for split in ("train", "dev"):
        (tmp_path / f"{split}.csv").write_bytes("text,label\na é,no\nb,yes\n".encode(kind))
    with pytest.raises(InputError, match=rf"every other byte is zero, as in {kind.upper()}.*iconv -f {kind} -t utf-8 train"):
        load("classification", tmp_path)


def test_a_line_before_the_names_of_columns_is_told(tmp_path) -> None:
    for split in ("train", "dev"):
        (tmp_path / f"{split}.csv").write_text("# my data\ntext,label\na,no\nb,yes\n")
    message = r"line 2: found 2 columns; expected 1 \(# my data\)\. Fix: name the columns in line 1, and remove what"
    with pytest.raises(InputError, match=message):
        load("classification", tmp_path)
