"""Reads a folder's `train` and `dev` files: TSV, CSV, JSON Lines or Parquet.

Text stays what it is: no quoting in TSV (GLUE's files hold bare quotes), and `null` and `NA` are words.
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
from datasets import Dataset
from pyarrow import parquet

from optkit.tasks.base import Split
from optkit.tasks.data.tables import Table, check_folder, listed, only_file, problem, shown, table_of

_STEMS: dict[Split, tuple[str, ...]] = {"train": ("train",), "dev": ("dev", "validation")}


def find(folder: Path) -> dict[Split, Path]:
    """The files `train.*` and `dev.*` (or `validation.*`) of a folder.

    Raises:
        InputError: no such folder, no file for a split, or more than one.
    """
    check_folder(folder)
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _READERS and path.is_file())
    return {
        split: only_file(
            folder,
            split,
            [path for path in files if path.stem in stems],
            " or ".join(f"{stem}.{{{','.join(kind[1:] for kind in _READERS)}}}" for stem in stems),
        )
        for split, stems in _STEMS.items()
    }


def read(path: Path) -> Table:
    """The rows of a file.

    Raises:
        InputError: not UTF-8, empty, or a row that cannot be read; the message names the line.
    """
    table = _READERS[path.suffix.lower()](path)
    if not len(table):
        raise problem(path, "a header and no rows", "one row per example", "add the rows")
    return table


def text_of(path: Path) -> str:
    """A file's text, without a byte order mark.

    Raises:
        InputError: the file is empty or not UTF-8; the message names the line.
    """
    data = path.read_bytes()
    if not data.strip():
        raise problem(path, "an empty file", "data", "write the data into it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{data[error.start]:02x}, which is not UTF-8"
        fix = f"save the file as UTF-8 (from Windows: iconv -f cp1252 -t utf-8 {path.name})"
        raise problem(f"{path}, line {line}", found, "text in UTF-8", fix) from None


def _tsv(path: Path) -> Table:
    return _delimited(path, "a tab within the text must become a space", delimiter="\t", quoting=csv.QUOTE_NONE)


def _csv(path: Path) -> Table:
    return _delimited(path, 'put text that holds a comma or a quote in quotes: "…", a quote in it doubled')


def _delimited(path: Path, fix: str, **dialect: Any) -> Table:
    """Rows with a header; a quoted field may span lines, so a row counts as the line it starts on."""
    reader = csv.reader(io.StringIO(text_of(path), newline="\n"), strict=True, **dialect)
    rows, lines, start = [], [], 1
    try:
        for row in reader:
            if row:
                rows.append(row)
                lines.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise problem(f"{path}, line {start}", f"an unreadable row ({error})", "one row per line", fix) from None
    header = _header(path, lines[0], rows[0])
    for line, row in zip(lines, rows, strict=True):
        if len(row) != len(header):
            expected = f"{len(header)} ({listed(header)})"
            raise problem(f"{path}, line {line}", f"{len(row)} columns", expected, fix)
    return Table(str(path), dict(zip(header, zip(*rows[1:], strict=True), strict=False)), lines[1:])


def _header(path: Path, line: int, names: Sequence[str]) -> list[str]:
    """Column names without blanks around them."""
    header = [name.strip() for name in names]
    twice = [name for name in dict.fromkeys(header) if header.count(name) > 1]
    if twice:
        raise problem(f"{path}, line {line}", f"column {twice[0]!r} twice", "every name once", "rename one of them")
    return header


def _json_lines(path: Path) -> Table:
    rows, lines = [], []
    for line, text in enumerate(text_of(path).split("\n"), start=1):
        if text.strip():
            rows.append(_json_object(path, line, text))
            lines.append(line)
    # A name that some rows lack is a column with nothing in it there: the checks of the columns name the line.
    names = dict.fromkeys(name for row in rows for name in row)
    return Table(str(path), {name: [row.get(name) for row in rows] for name in names}, lines)


def _json_object(path: Path, line: int, text: str) -> dict[str, Any]:
    where, expected, fix = f"{path}, line {line}", "one JSON object per line", "write each row as {…} on its own line"
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise problem(where, f"no JSON ({error.msg} at column {error.colno}): {shown(text)}", expected, fix) from None
    if not isinstance(row, dict):
        raise problem(where, shown(row), expected, fix)
    return row


def _parquet(path: Path) -> Table:
    try:
        with parquet.ParquetFile(path) as file:
            table = file.read()
    except (pyarrow.ArrowException, OSError) as error:
        found = f"a file that cannot be read as Parquet ({error})"
        raise problem(path, found, "Parquet", "write it anew, or give it the ending of what it is") from None
    return table_of(Dataset(table), str(path))


_READERS: dict[str, Callable[[Path], Table]] = {
    ".tsv": _tsv,
    ".csv": _csv,
    ".jsonl": _json_lines,
    ".json": _json_lines,
    ".parquet": _parquet,
}
