"""A table of the user's own divided into train and dev, such that rows that belong together stay on one side."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optkit.core.atomic import disk_error, write_text
from optkit.tasks.base import SPLITS
from optkit.tasks.data import leaks, reading
from optkit.tasks.data.classes import MOST_CLASSES
from optkit.tasks.data.columns import mapped
from optkit.tasks.data.conll import SENTENCES, TOKENS, joined
from optkit.tasks.data.data_settings import DataSettings
from optkit.tasks.data.division import divide
from optkit.tasks.data.leaks import Leaks, Side
from optkit.tasks.data.pieces import sentences_of
from optkit.tasks.data.tables import GROUP, Table, check_text, listed, numbered, problem
from optkit.tasks.texts import TEXT_COLUMNS, text_columns

SENTENCE = "sentence"


@dataclass(frozen=True)
class Part:
    """One side of a division."""

    path: Path
    rows: int
    groups: int


@dataclass(frozen=True)
class Report:
    """What a division has come to."""

    train: Part
    dev: Part
    left_out: int
    """Rows that are pieces of texts in train and of others in dev."""
    leaks: Leaks
    classes: tuple[str, ...]
    """Values of the column `label` that dev alone has, from which no model could learn them."""

    def lines(self) -> Iterator[str]:
        """Yield what there is to say, in lines."""
        for name, part in (("train", self.train), ("dev", self.dev)):
            yield f"{name}: {part.rows:,} rows in {_groups(part.groups)}, {part.path}"
        if self.left_out:
            yield f"left out: {self.left_out:,} rows that are pieces of texts in train and of others in dev"
        if self.classes:
            yield f"dev: no row of train has the label {listed(self.classes)}; take another --seed, or a larger table"
        found = list(self.leaks.sentences()) or ["no row is equal to one of train, nearly equal, or shares its text"]
        yield from (f"dev: {sentence}" for sentence in found)


def split(path: Path, by: str, out: Path, share: float = 0.1, seed: int = 0, columns: DataSettings | None = None) -> Report:
    """Write `train` and `dev` files of a table, with a column `group`: as CSV or TSV if it is, and else as JSON Lines.

    Args:
        path: file of the table.
        by: `sentence`: rows belong to the whole texts that they are pieces of, and those of both sides are left out; or
            `group`: rows of a group stay together.
        out: folder for the files.
        share: how much of the rows dev gets, at most.
        seed: of the draw.
        columns: names of columns.

    Raises:
        InputError: the table is wrong, or has no texts or groups; all groups are too large; or there are such files.
    """
    if path.name.lower().endswith(SENTENCES):
        fix = "give each sentence its group as JSON Lines: tokens, tags, group"
        raise problem(path, "sentences without columns of their own", "a table", fix)
    table = reading.read_file(path)
    texts, names, groups = _belonging(table, by, columns or DataSettings())
    found = divide(groups, share * len(table), seed)
    if not found.part or not found.rest:
        sizes = f"{len(table):,} rows in {_groups(len(set(names)))}, none of which makes a dev split of {share:.0%} at most"
        fix = "give dev a larger share: --dev 0.3" if len(set(names)) > 1 else "add rows of other groups"
        raise problem(path, sizes, "many groups of a few rows each", fix)
    _check_free(out)
    parts, sides = [], []
    for name, rows in zip(SPLITS, (found.rest, found.part), strict=True):
        written = _write(out, name, path, {**table.columns, GROUP: names}, rows)
        parts.append(Part(written, len(rows), len({names[row] for row in rows})))
        sides.append(Side([texts[row] for row in rows], [texts[row][0] for row in rows]))
    train, dev = parts
    return Report(train, dev, len(found.left_out), leaks.find(*sides), _alone(table, found.rest, found.part))


def _groups(count: int) -> str:
    return f"{count:,} groups" if count != 1 else "1 group"


def _alone(table: Table, train: Sequence[int], dev: Sequence[int]) -> tuple[str, ...]:
    """Return the classes that dev alone has; none where labels are so many that they are values."""
    labels = [str(value) for value in table.columns.get("label", ())]
    if not 0 < len(set(labels)) <= max(MOST_CLASSES, len(labels) / 2):
        return ()
    return tuple(sorted({labels[row] for row in dev} - {labels[row] for row in train}))


def _belonging(table: Table, by: str, columns: DataSettings) -> tuple[list[tuple[str, ...]], list[str], list[list[int]]]:
    """Return the texts of each row, the name of its group, and the numbers of all groups that it belongs to."""
    other = columns.group_column if by == GROUP else SENTENCE
    if GROUP in table.columns and other not in (None, GROUP):
        raise problem(table.source, f"a column {GROUP!r}", "none", f"divide by it: --by {GROUP}; or rename the column")
    known = mapped(table, columns, TEXT_COLUMNS)
    texts = _texts(known)
    if by == SENTENCE:
        groups = sentences_of([own[0] for own in texts])
        return texts, [str(own[0]) for own in groups], groups
    if GROUP not in known.columns:
        found = f"no column {GROUP!r} ({table.named})"
        raise problem(table.source, found, "the group of each row", "name it: --group-column NAME")
    return texts, list(known.columns[GROUP]), [[number] for number in numbered(known.columns[GROUP])]


def _texts(table: Table) -> list[tuple[str, ...]]:
    """Return the texts of each row; tokens are joined."""
    if TOKENS in table.columns:
        return [(text,) for text in joined(table.columns[TOKENS])]
    names = text_columns(table)
    for name in names:
        for row, value in enumerate(table.columns[name]):
            check_text(table.at(row), name, value)
    return list(zip(*(table.columns[name] for name in names), strict=True))


def _check_free(out: Path) -> None:
    """Raise `InputError` where a file is in the way, or files of splits, which might be mixed with the new ones."""
    if out.exists() and not out.is_dir():
        raise problem(out, "a file", "a folder", "give another folder: --out DIR")
    if out.is_dir() and (there := [path.name for path in sorted(out.iterdir()) if path.name.startswith(SPLITS)]):
        raise problem(out, listed(there), "no files of splits", "give another folder: --out DIR")


def _write(out: Path, name: str, source: Path, columns: Mapping[str, Sequence[Any]], rows: Sequence[int]) -> Path:
    """Write some rows of a table in the kind of its file, and return the path."""
    ending = Path(source.name.lower().removesuffix(".gz")).suffix
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(out, error) from error
    chosen = [[values[row] for values in columns.values()] for row in rows]
    if ending not in (".csv", ".tsv"):
        lines = [json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False, default=str) for row in chosen]
        write_text(path := out / f"{name}.jsonl", "".join(f"{line}\n" for line in lines))
    elif ending == ".tsv":
        lines = ["\t".join(map(str, row)) for row in (columns, *chosen)]
        write_text(path := out / f"{name}.tsv", "".join(f"{line}\n" for line in lines))
    else:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows((columns, *chosen))
        write_text(path := out / f"{name}.csv", text.getvalue())
    return path
