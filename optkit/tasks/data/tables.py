"""Rows on their way from a file to a task, and the error that points at one of them."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optkit.core.errors import InputError
from optkit.core.json_door import encodable

if TYPE_CHECKING:
    from datasets import Dataset

LARGEST = 4 * 2**30
"""Bytes of a file when it is unpacked."""
GROUP = "group"
"""Column with what rows belong to, such as the sentence that they are phrases of."""
SPLIT = "split the rows into shards: train-1.csv, train-2.csv, …"
SHUFFLE_SEED = 0  # of the limit on training rows: the same rows for every user, recipe and training seed


@dataclass(frozen=True)
class Table:
    """Columns of equal length, and where each row was read."""

    source: str
    columns: Mapping[str, Sequence[Any]]
    lines: Sequence[int | str]
    """Where each row was read: the number of its line, counted from 1, or file and line."""
    unit: str = "line"
    """What `lines` counts: `line` of a text file, `row` of anything else, `file` where there are several."""
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What the integers of a column stand for, where the source says so, by column."""

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """What the integers of the column `label` stand for; None where nothing says so."""
        return self.classes.get("label")

    @property
    def named(self) -> str:
        """The columns, for error messages; with a hint where a first line looks like a row."""
        odd = any(" " in name or name.replace(".", "", 1).isdigit() for name in self.columns)
        has_header = self.source.lower().removesuffix(".gz").endswith((".csv", ".tsv"))
        return f"columns{' by the first line, which must name them' if odd and has_header else ''}: {listed(self.columns)}"

    def at(self, row: int) -> str:
        """Return the place where a row was read, for error messages."""
        return f"{self.source}, {self.unit} {self.lines[row]}"


def header_of(where: object, names: Iterable[str]) -> list[str]:
    """Column names without blanks around them.

    Raises:
        InputError: one comes twice.
    """
    header = [name.strip() for name in names]
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise problem(where, f"column {twice[0]!r} twice", "every name once", "rename one of them")
    return header


def table_of(dataset: "Dataset", source: str) -> Table:
    """A `datasets.Dataset` as a table; the names of its columns of `ClassLabel`, or of lists of them, come along."""
    from datasets import ClassLabel

    kinds = {name: getattr(kind, "feature", kind) for name, kind in dataset.features.items()}
    classes = {name: tuple(kind.names) for name, kind in kinds.items() if isinstance(kind, ClassLabel)}
    try:
        columns = dataset.to_dict()
    except (ValueError, ArithmeticError) as error:  # text that is not UTF-8, times beyond Python's
        raise problem(source, f"values that cannot be read ({error})", "text and numbers", "save the data anew") from None
    return Table(source, columns, range(1, len(dataset) + 1), unit="row", classes=classes)


def joined(tables: Sequence[Table]) -> Table:
    """Return the rows of several files, such as shards, one after the other.

    Raises:
        InputError: a file has other columns, or other class names, than the first.
    """
    first = tables[0]
    for table in tables[1:]:
        if set(table.columns) != set(first.columns) or table.classes != first.classes:
            expected = f"those of {first.source}: {listed(first.columns)}"
            raise problem(table.source, f"columns {listed(table.columns)}", expected, "give all shards the same columns")
    columns = {name: [value for table in tables for value in table.columns[name]] for name in first.columns}
    places = [f"{Path(table.source).name}, {table.unit} {place}" for table in tables for place in table.lines]
    return Table(str(Path(first.source).parent), columns, places, "file", first.classes)


def problem(where: object, found: str, expected: str, fix: str) -> InputError:
    """The error for a mistake in the user's data, ready to be raised."""
    return InputError(f"{where}: found {found}; expected {expected}. Fix: {fix}")


def shown(value: object, longest: int = 60) -> str:
    """A value as an error message quotes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= longest else f"{text[:longest]}…"


def listed(names: Iterable[str], most: int = 8) -> str:
    """Names in one line, the first few where there are many."""
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + rest


def check_text(where: str, name: str, value: object) -> None:
    """Raises InputError unless `value` is text that a tokenizer can read."""
    if value is None or (isinstance(value, str) and not value.strip()):
        found = "nothing" if value is None else "empty text"
        raise problem(where, f"{found} in {name!r}", "text", "write the text, or remove the row")
    if not isinstance(value, str):
        found = f"{shown(value)} ({type(value).__name__}) in {name!r}"
        raise problem(where, found, "text", "put it in quotes, or rename the column that holds the text")
    if not encodable(value):
        found = f"half of a surrogate pair in {name!r}: {shown(value)}"
        raise problem(where, found, "whole characters", "write the character in UTF-8 or as its full pair of escapes")


def limited(rows: int, limit: int | None) -> Sequence[int]:
    """Return the rows to keep: all, or the first `limit` after a shuffle with a fixed seed, so that no class is left out."""
    if limit is None or limit >= rows:
        return range(rows)
    return np.random.default_rng(SHUFFLE_SEED).permutation(rows)[:limit].tolist()


def numbered(values: Sequence[Hashable]) -> list[int]:
    """Return the number of each value, by first appearance; equal ones have the same."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(value, len(numbers)) for value in values]


def fingerprint(*splits: "Dataset") -> str:
    """SHA-256 of what the splits hold, types and class names included."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(json.dumps([repr(split.features), split.to_dict()], sort_keys=True).encode())
    return digest.hexdigest()


def only_file(folder: Path, split: str, candidates: Sequence[Path], expected: str) -> Path:
    """The one file of a split among `candidates`.

    Raises:
        InputError: there is none, or more than one.
    """
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        found = f"{len(candidates)} {split} files ({listed(path.name for path in candidates)})"
        raise problem(folder, found, "one", "move all but one to another folder")
    names = listed(sorted(path.name for path in folder.iterdir()))
    raise problem(folder, f"no {split} file (the folder holds: {names})", expected, f"add the {split} file")


def required(task: str, data: str | None) -> str:
    """The place of a task's data.

    Raises:
        InputError: none was given.
    """
    if data is None:
        raise InputError(f"task {task!r}: no data; expected a folder with a train and a dev file. Fix: --data DIR")
    return data


def check_folder(folder: Path) -> None:
    """Raises InputError unless `folder` is one."""
    if not os.path.isdir(folder):  # False too for what no path can be
        found = "a file" if os.path.exists(folder) else "no such folder"
        raise problem(folder, found, "a folder with a train and a dev file", "give the folder's path: --data DIR")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise problem(folder, "a folder that may not be read", "one that may", "change its rights")
