"""Reads a folder's `train` and `dev` files: TSV, CSV, JSON Lines, JSON or Parquet; text files may be packed by gzip.

Text stays what it is: no quoting in TSV (GLUE's files hold bare quotes), and `null` and `NA` are words.
"""

import codecs
import csv
import gzip
import io
import json
import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optkit.core.errors import InputError
from optkit.core.json_door import loads, read_bytes
from optkit.tasks.base import SPLITS, Split
from optkit.tasks.data import parquet_rows, quoting, splits
from optkit.tasks.data.tables import LARGEST, SPLIT, Table, check_folder, header_of, joined, listed, problem, shown

csv.field_size_limit(2**31 - 1)  # a text may have more than Python's 131,072 characters
log = logging.getLogger(__name__)
_BEGIN = 64
"""Bytes of a file by which its encoding is told."""
_ARRAY = "write an array of objects: [{…}, {…}], or each object on a line of its own"


Readers = Mapping[str, Callable[[Path], Table]]
"""Functions that read a file, by its ending."""


def find(
    folder: Path, wanted: Sequence[Split] = SPLITS, required: bool = True, more: Readers | None = None
) -> dict[Split, list[Path]]:
    """Find the files of the wanted splits of a folder; see `splits.find`.

    Args:
        folder: holds them.
        wanted: splits to find.
        required: whether a wanted split that is missing is an error.
        more: readers of further endings, or in place of the usual ones.

    Raises:
        InputError: no such folder, no file for a split, several, or a shard that is missing.
    """
    check_folder(folder)
    return splits.find(folder, tuple({**_READERS, **(more or {})}), wanted, required)


def named(folder: Path, name: str, more: Readers | None = None) -> list[Path]:
    """Find the files of one name in a folder, whatever they end in; see `splits.named`.

    Raises:
        InputError: there is none, or more than one that could be it.
    """
    readers = {**_READERS, **(more or {})}
    if found := splits.named(folder, name, tuple(readers)):
        return found
    expected = f"{name}.{{{','.join(ending[1:] for ending in readers)}}}"
    there = listed(sorted(path.name for path in folder.iterdir()))
    raise problem(folder, f"no {name} file (the folder holds: {there})", expected, f"add the {name} file")


def read(paths: Sequence[Path], more: Readers | None = None) -> Table:
    """Read the rows of a split's files, one after the other.

    Args:
        paths: of the files.
        more: readers of further endings, or in place of the usual ones.

    Raises:
        InputError: not UTF-8, empty, other columns than in the first file, or a row that cannot be read; the message names
            the line.
    """
    tables = [_read(path, {**_READERS, **(more or {})}) for path in paths]
    return tables[0] if len(tables) == 1 else joined(tables)


def read_file(path: Path, more: Readers | None = None) -> Table:
    """Read a table that is one file, whatever it is called.

    Args:
        path: of the file.
        more: readers of further endings.

    Raises:
        InputError: no such file, one that no reader knows by its ending, or as for `read`.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise problem(path, found, "a file with a table", "give the path of the file")
    endings = (*_READERS, *(more or {}))
    if not path.name.lower().removesuffix(".gz").endswith(endings):
        raise problem(path, f"the ending {path.suffix!r}", f"one of {', '.join(endings)}", "rename the file after its kind")
    return read([path], more)


def _read(path: Path, readers: Readers) -> Table:
    name = path.name.lower().removesuffix(".gz")
    table = next(reader for ending, reader in readers.items() if name.endswith(ending))(path)
    if not len(table):
        raise problem(path, "a header and no rows", "one row per example", "add the rows")
    return table


def text_of(path: Path) -> str:
    """A file's text, without a byte order mark.

    Raises:
        InputError: the file is empty, too large or not UTF-8; the message names the line.
    """
    data = _bytes(path)
    if (kind := _wide(data)) is not None:
        fix = f"save the file as UTF-8 (iconv -f {kind} -t utf-8 {path.name})"
        raise problem(path, f"every other byte is zero, as in {kind.upper()}", "text in UTF-8", fix)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{data[error.start]:02x}, which is not UTF-8"
        likely = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "cp1252"
        fix = f"save the file as UTF-8 (from Windows: iconv -f {likely} -t utf-8 {path.name})"
        raise problem(f"{path}, line {line}", found, "text in UTF-8", fix) from None
    if not text.strip():
        raise problem(path, "an empty file", "data", "write the data into it")
    if "\r" in text.strip() and "\n" not in text:
        fix = f"end lines with a line feed (tr '\\r' '\\n' < {path.name})"
        raise problem(path, "lines that end with a carriage return alone", "line feeds", fix)
    return text


def _wide(data: bytes) -> str | None:
    """Return the encoding of a text whose characters have two bytes, the one of them zero; None for any other."""
    for kind, first in (("utf-16le", 1), ("utf-16be", 0)):
        zero, other = data[first:_BEGIN:2], data[1 - first : _BEGIN : 2]
        if zero and not any(zero) and all(other):
            return kind
    return None


def _bytes(path: Path) -> bytes:
    if not path.name.lower().endswith(".gz"):
        return read_bytes(path, SPLIT, LARGEST)
    try:
        with gzip.open(path) as file:
            data = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise problem(path, f"a file that cannot be unpacked ({error})", "gzip", "pack it anew") from None
    if len(data) > LARGEST:
        raise problem(path, f"more than {LARGEST:,} bytes when unpacked", "less", SPLIT)
    return data


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
    header = header_of(f"{path}, line {lines[0]}", rows[0])
    quoting.check_delimiter(path, header, dialect.get("delimiter", ","))
    if not rows[1:]:
        found = f"a header ({listed(header)}) and no rows"
        raise problem(path, found, "a line that names the columns, and one row per example", "add the rows, or that line")
    for line, row in zip(lines, rows, strict=True):
        if len(row) != len(header):
            expected = f"{len(header)} ({listed(header)})"
            told = fix if len(header) > 1 else f"name the columns in line {lines[0]}, and remove what is before their names"
            raise problem(f"{path}, line {line}", f"{len(row)} columns", expected, told)
    table = Table(str(path), dict(zip(header, zip(*rows[1:], strict=True), strict=False)), lines[1:])
    if dialect.get("quoting") == csv.QUOTE_NONE:
        quoting.check_quotes(table)
    else:
        quoting.check_blanks(table)
    return table


def no_json(path: Path, error: ValueError, fix: str) -> InputError:
    """The error for a file that is no JSON, ready to be raised."""
    if not isinstance(error, json.JSONDecodeError):
        return problem(path, str(error), "JSON", fix)
    return problem(f"{path}, line {error.lineno}", f"no JSON ({error.msg} at column {error.colno})", "JSON", fix)


def _json(path: Path) -> Table:
    """Read a file that is one array of objects, or an object whose only list is one (`{"data": […]}`), or JSON Lines."""
    content = text_of(path)
    try:
        rows = _rows_of(loads(content))
    except _NoRowsError as error:
        fix = f"{_ARRAY}; in pandas: to_json(…, orient='records')"
        raise problem(path, str(error), "an object for each row", fix) from None
    except ValueError as error:
        if content.lstrip().startswith("["):
            raise no_json(path, error, _ARRAY) from None
        rows = None
    if rows is None:
        return _json_lines(path)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise problem(f"{path}, row {number}", shown(row), "an object {…} for each row", _ARRAY)
    return _of_objects(path, rows, range(1, len(rows) + 1), "row")


class _NoRowsError(ValueError):
    """An object has all rows in another way than one after the other."""


def _is_of_columns(value: Mapping[str, Any]) -> bool:
    """Return whether an object has all rows: lists of one length, or as pandas writes them, with a number for each row."""
    parts = list(value.values())
    if len(parts) > 1 and all(isinstance(part, list) for part in parts):
        return len(parts[0]) > 1 and len({len(part) for part in parts}) == 1
    if len(parts) > 1 and all(isinstance(part, dict) and part.keys() == parts[0].keys() for part in parts):
        return any(len(part) > 1 and all(map(str.isdecimal, part)) for part in (value, parts[0]))
    return value.keys() == {"columns", "index", "data"}


def _rows_of(value: Any) -> list[Any] | None:
    """Return the rows in a JSON value; None for an object that is a row itself.

    Raises:
        ValueError: an object that has all rows in another way.
    """
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and _is_of_columns(value):
        raise _NoRowsError(f"one object ({listed(value)}) with all rows")
    lists = [part for part in value.values() if isinstance(part, list)] if isinstance(value, dict) else []
    return lists[0] if len(lists) == 1 and lists[0] and isinstance(lists[0][0], dict) else None


def _json_lines(path: Path) -> Table:
    pairs = [(line, text) for line, text in enumerate(text_of(path).split("\n"), start=1) if text.strip()]
    return _of_objects(path, [_json_object(path, *pair) for pair in pairs], [line for line, _ in pairs], "line")


def _of_objects(path: Path, rows: Sequence[Mapping[str, Any]], places: Sequence[int], unit: str) -> Table:
    # A name that some rows lack is a column with nothing in it there: the checks of the columns name the line.
    names = dict.fromkeys(name for row in rows for name in row)
    return Table(str(path), {name: [row.get(name) for row in rows] for name in names}, places, unit)


def _json_object(path: Path, line: int, text: str) -> dict[str, Any]:
    where, expected, fix = f"{path}, line {line}", "one JSON object per line", "write each row as {…} on its own line"
    try:
        row = loads(text)
    except json.JSONDecodeError as error:
        raise problem(where, f"no JSON ({error.msg} at column {error.colno}): {shown(text)}", expected, fix) from None
    except ValueError as error:
        raise problem(where, str(error), expected, fix) from None
    if not isinstance(row, dict):
        raise problem(where, shown(row), expected, fix)
    return row


def _lines(path: Path) -> Table:
    """Read a text a line; empty lines are none."""
    pairs = [(number, line.strip()) for number, line in enumerate(text_of(path).split("\n"), start=1) if line.strip()]
    return Table(str(path), {"text": [text for _, text in pairs]}, [number for number, _ in pairs])


_READERS: Readers = {
    ".tsv": _tsv,
    ".csv": _csv,
    ".jsonl": _json_lines,
    ".json": _json,
    ".parquet": parquet_rows.read,
}
PLAIN: Readers = {".txt": _lines}
"""Readers of plain text: each line a row of the column `text`."""
