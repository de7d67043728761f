"""A table divided into train and dev."""

import gzip
import json
from pathlib import Path

import pytest

from optkit.core.errors import InputError, MachineError
from optkit.tasks.data.data_settings import DataSettings
from optkit.tasks.data.table_split import split
from optkit.tasks.registry import load


def phrases(path: Path, sentences: int = 20) -> Path:
    """A table of sentences of six words, and of two phrases of each."""
    wholes = [[f"w{number}{place}" for place in range(6)] for number in range(sentences)]
    texts = [" ".join(words[start:end]) for start, end in ((0, 6), (0, 3), (2, 6)) for words in wholes]
    path.write_text("sentence\tlabel\n" + "".join(f"{text}\t{place % 2}\n" for place, text in enumerate(texts)))
    return path


def rows_of(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text().splitlines()]


def test_phrases_stay_with_their_sentence_and_tasks_draw_sentences(tmp_path: Path) -> None:
    report = split(phrases(tmp_path / "all.tsv"), "sentence", tmp_path / "out", 0.25)
    header, *dev = rows_of(tmp_path / "out" / "dev.tsv")
    assert header == ["sentence", "label", "group"] and len(dev) == 15 == report.dev.rows
    train = rows_of(tmp_path / "out" / "train.tsv")[1:]
    assert len(train) == 45 and report.left_out == 0 and not {row[2] for row in dev} & {row[2] for row in train}
    assert list(report.lines()) == [
        f"train: 45 rows in 15 groups, {tmp_path}/out/train.tsv",
        f"dev: 15 rows in 5 groups, {tmp_path}/out/dev.tsv",
        "dev: no row is equal to one of train, nearly equal, or shares its text",
    ]
    task = load("classification", tmp_path / "out")
    assert task.drawn().examples.max() == 4 and task.leaks == report.leaks
    other = split(tmp_path / "all.tsv", "sentence", tmp_path / "other", 0.25, seed=1)
    assert (
        other.dev.rows == 15 and (tmp_path / "other" / "dev.tsv").read_text() != (tmp_path / "out" / "dev.tsv").read_text()
    )


def test_rows_of_both_sides_are_left_out_and_told(tmp_path: Path) -> None:
    rows = ["a b c d e", "v w x a b c", "a b c", "q r s t"]
    (tmp_path / "all.csv").write_text("text,label\n" + "".join(f"{row},{place}\n" for place, row in enumerate(rows)))
    found = {split(tmp_path / "all.csv", "sentence", tmp_path / str(seed), 0.25, seed).left_out for seed in range(12)}
    assert found <= {0, 1} and 1 in found


def test_by_a_column_in_other_kinds_of_files(tmp_path: Path) -> None:
    rows = [{"text": f"text {place}", "tags": ["x"], "story": place // 5} for place in range(20)]
    path = tmp_path / "all.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    report = split(path, "group", tmp_path / "out", 0.25, columns=DataSettings(group_column="story"))
    dev = [json.loads(line) for line in report.dev.path.read_text().splitlines()]
    assert report.dev.path.name == "dev.jsonl" and len(dev) == 5
    assert dev[0]["tags"] == ["x"] and {row["group"] for row in dev} == {str(dev[0]["story"])}


def test_text_with_commas_quotes_and_lines_stays_what_it_is(tmp_path: Path) -> None:
    text = 'a "quoted", text\nof two lines'
    rows = "".join(f'"{text.replace(chr(34), chr(34) * 2)} {place}",x{place % 2}\n' for place in range(10))
    (tmp_path / "all.csv").write_text(f"text,label\n{rows}")
    split(tmp_path / "all.csv", "sentence", tmp_path / "out", 0.3)
    texts = load("classification", tmp_path / "out").texts("train")
    assert all(own[0].startswith(text) for own in texts) and len(texts) == 7


GROUPED = "text,label,group\na,0,g\nb,1,g\nc,0,h\n"


@pytest.mark.parametrize(
    ("text", "by", "columns", "message"),
    [
        (GROUPED, "sentence", {}, "found a column 'group'; expected none.*--by group"),
        (GROUPED.replace("group", "story"), "group", {}, r"found no column 'group' \(.*--group-column NAME"),
        (GROUPED, "group", {"group_column": "label"}, "found a column 'group'; expected none"),
        (GROUPED.replace("h", "g"), "group", {}, "3 rows in 1 group, none of which makes a dev split of 40% at most"),
        (GROUPED.replace("h", "g"), "group", {}, "Fix: add rows of other groups"),
        (GROUPED.replace("text", "words"), "group", {}, "no column with text"),
        (GROUPED.replace("c,", ","), "group", {}, "line 4: found empty text in 'text'"),
    ],
)
def test_tables_that_cannot_be_divided(text: str, by: str, columns: dict, message: str, tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        split(tmp_path / "all.csv", by, tmp_path / "out", 0.4, columns=DataSettings(**columns))
    assert not (tmp_path / "out").exists()


def test_a_class_that_dev_alone_has_is_said(tmp_path: Path) -> None:
    rows = "".join(f"{word} film,{word},{word}\n" for word in ("good", "bad") * 4 + ("odd",))
    (tmp_path / "all.csv").write_text(f"text,label,group\n{rows}")
    found = [list(split(tmp_path / "all.csv", "group", tmp_path / f"{seed}", 0.2, seed).lines()) for seed in range(3)]
    assert any("dev: no row of train has the label odd; take another --seed" in line for lines in found for line in lines)
    (tmp_path / "values.csv").write_text("text,label,group\n" + "".join(f"film {n},{n}.5,{n}\n" for n in range(60)))
    assert not split(tmp_path / "values.csv", "group", tmp_path / "values", 0.2).classes


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        ("all.tsv", InputError, "found a file; expected a folder"),
        ("all.tsv/deeper", MachineError, "all.tsv/deeper: cannot be written: Not a directory"),
    ],
)
def test_folders_that_cannot_be_made(place: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    table = phrases(tmp_path / "all.tsv")
    with pytest.raises(error, match=message):
        split(table, "sentence", tmp_path / place)


def test_places_that_are_none(tmp_path: Path) -> None:
    table = phrases(tmp_path / "all.tsv")
    with pytest.raises(InputError, match="found no such file"):
        split(tmp_path / "none.tsv", "sentence", tmp_path / "out")
    with pytest.raises(InputError, match=r"found the ending '.doc'; expected one of .tsv, .csv"):
        split(table.rename(tmp_path / "all.doc"), "sentence", tmp_path / "out")
    (tmp_path / "all.conll").write_text("a O\n\nb O\n")
    with pytest.raises(InputError, match=r"found sentences without columns of their own.*JSON Lines: tokens, tags, group"):
        split(tmp_path / "all.conll", "sentence", tmp_path / "out")
    table = phrases(tmp_path / "all.tsv")
    split(table, "sentence", tmp_path / "out")
    with pytest.raises(InputError, match=r"found dev\.tsv, train\.tsv; expected no files of splits"):
        split(table, "sentence", tmp_path / "out")
