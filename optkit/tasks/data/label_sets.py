"""Several labels a row: lists in one column, or a column of 0 and 1 for each label."""

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from optkit.core.json_door import loads
from optkit.tasks.base import Split
from optkit.tasks.data.classes import class_index, class_name, classes_of
from optkit.tasks.data.columns import LABEL
from optkit.tasks.data.tables import Table, listed, problem, shown

log = logging.getLogger(__name__)
COLUMNS = ("labels", LABEL)
"""What the column with the lists may be called."""
SEPARATORS = ("|", ";", ",")
"""What labels in one text may be apart by; the first that occurs in the train file is meant."""
_BITS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
_BRACKETS = ("[", "{", "('", '("')
"""What texts begin with that are no names: lists in JSON, and what must not be taken apart at its commas."""
_LIST = 'a list, such as ["a", "b"], and [] for no label'
_MOSTLY = 0.5
"""Share of 0 and 1 from which a column is one of labels, so that other values in it are mistakes."""

Sets = list[list[str]]


def labelled(tables: Mapping[Split, Table], named: str | None, others: Collection[str]) -> dict[Split, Table]:
    """Return tables whose column `label` holds the labels of each row.

    Args:
        tables: as they were read.
        named: column of the lists, or columns of 0 and 1 apart by commas; None to look for them.
        others: columns that hold texts or groups.

    Raises:
        InputError: there are no such columns, or other values than 0 and 1; the message names the row.
    """
    train = tables["train"]
    names = [] if named is None else [named] if named in train.columns else [name.strip() for name in named.split(",")]
    if len(names) > 1:
        return {split: _of_columns(table, names) for split, table in tables.items()}
    found = names or [name for name in COLUMNS if name in train.columns]
    if len(found) > 1:
        raise problem(train.source, f"the columns {listed(found)}", "one", "name it: --label-column NAME")
    if found:
        return {split: _renamed(table, found[0]) for split, table in tables.items()}
    columns = _columns_of_bits(train, others)
    return {split: _of_columns(table, columns) for split, table in tables.items()}


def read(tables: Mapping[Split, Table]) -> tuple[tuple[str, ...], dict[Split, list[list[int]]]]:
    """Return all classes in the order of the logits, and the classes of every row by split, in that order.

    Args:
        tables: with lists, or texts of labels, in the column `label`.

    Raises:
        InputError: a row without a list, a label twice or unknown, or rows that all have the same labels.
    """
    train = tables["train"]
    separator = _separator(train)
    sets = {split: _sets(table, separator) for split, table in tables.items()}
    if not any(sets["train"]):
        raise problem(train.source, f"no label in {len(train)} rows", "rows with labels", "label them")
    classes = classes_of(train, [name for names in sets["train"] for name in names])
    _check_rows(train, sets["train"], classes)
    index = {name: position for position, name in enumerate(classes)}
    return classes, {
        split: [sorted(class_index(tables[split], row, name, index) for name in names) for row, names in enumerate(own)]
        for split, own in sets.items()
    }


def _check_rows(train: Table, sets: Sets, classes: Sequence[str]) -> None:
    """Refuse rows that are all alike, and name the labels that nothing can be learned of."""
    if len({frozenset(names) for names in sets}) < 2:
        found = f"the labels {listed(sets[0])} in each of {len(sets)} rows"
        raise problem(train.source, found, "different ones", "add rows of other labels")
    if all(len(names) == 1 for names in sets):
        log.warning("%s: every row has exactly one label, which --task classification learns as such", train.source)
    counts = Counter(name for names in sets for name in names)
    for what, times in (("no row", 0), ("every row", len(sets))):
        if odd := [name for name in classes if counts[name] == times]:
            log.warning("%s: %s has %s, of which nothing can be learned", train.source, what, listed(odd))


def _sets(table: Table, separator: str | None) -> Sets:
    if LABEL not in table.columns:
        found = f"no column {LABEL!r} ({table.named})"
        raise problem(table.source, found, "the labels of each row", "name it: --label-column NAME")
    return [_set(table, row, value, separator) for row, value in enumerate(table.columns[LABEL])]


def _set(table: Table, row: int, value: Any, separator: str | None) -> list[str]:
    """The names of a row's labels."""
    items = _items(table, row, value, separator) if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        found = "no labels" if items is None else f"{shown(items)} ({type(items).__name__}) as labels"
        raise problem(table.at(row), found, _LIST, "write a list; rows of one class each: --task classification")
    names = [class_name(table, row, item) for item in items]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice and all(_bit(name) is not None for name in names):
        fix = "write the names of those that are 1, or give each label a column of its own"
        raise problem(table.at(row), f"{shown(items)}, a 0 or 1 for each label", _LIST, fix)
    if twice:
        raise problem(table.at(row), f"the label {shown(twice[0])} twice", "each once", "remove one of them")
    return names


def _items(table: Table, row: int, text: str, separator: str | None) -> Any:
    """What a text holds: a value in JSON, or names apart by the separator."""
    if text.lstrip().startswith(_BRACKETS):
        try:
            return loads(text)
        except ValueError:
            raise problem(
                table.at(row), f"{shown(text)} as labels", f"{_LIST}, in JSON", "write it with json.dumps"
            ) from None
    parts = text.split(separator) if separator else [text]
    return [part for part in map(str.strip, parts) if part]


def _separator(table: Table) -> str | None:
    """What the labels of a column of texts are apart by; None where none has several."""
    texts = [
        value
        for value in table.columns.get(LABEL, ())
        if isinstance(value, str) and not value.lstrip().startswith(_BRACKETS)
    ]
    found = next((one for one in SEPARATORS if any(one in text for text in texts)), None)
    if found:
        log.info("%s: labels are taken to be apart by %r", table.source, found)
    return found


def _renamed(table: Table, name: str) -> Table:
    """The table with its column of lists under its usual name."""
    if name not in table.columns:
        raise problem(table.source, f"no column {name!r} ({table.named})", "the labels of each row", "name it alike in both")
    columns = {other: values for other, values in table.columns.items() if other != LABEL} | {LABEL: table.columns[name]}
    classes = {LABEL: table.classes[name]} if name in table.classes else {}
    return replace(table, columns=columns, classes=classes)


def _columns_of_bits(train: Table, known: Collection[str]) -> list[str]:
    """The columns of 0 and 1; those that are left out are told."""
    others = [name for name in train.columns if name not in known]
    shares = {name: sum(_bit(value) is not None for value in train.columns[name]) / len(train) for name in others}
    found = [name for name, share in shares.items() if share > _MOSTLY]
    if not found:
        expected = "a column 'labels' with lists, or a column of 0 and 1 for each label"
        raise problem(train.source, f"no labels ({train.named})", expected, "name the column: --label-column NAME")
    left_out = [name for name in others if name not in found]
    log.info("%s: the labels are the columns %s", train.source, listed(found, most=len(found)))
    if left_out:
        log.info("%s: left out: the columns %s, which are not of 0 and 1", train.source, listed(left_out))
    return found


def _of_columns(table: Table, names: Sequence[str]) -> Table:
    """The table with lists in place of its columns of 0 and 1."""
    if missing := [name for name in names if name not in table.columns]:
        raise problem(
            table.source, f"no column {missing[0]!r} ({table.named})", "the label's column", "name it alike in both"
        )
    if len(names) < 2:
        raise problem(table.source, f"one column of labels ({names[0]!r})", "several", "use --task classification")
    bits = {name: [_checked_bit(table, row, name, value) for row, value in enumerate(table.columns[name])] for name in names}
    sets = [[name for name in names if bits[name][row]] for row in range(len(table))]
    columns = {name: values for name, values in table.columns.items() if name not in names} | {LABEL: sets}
    return replace(table, columns=columns, classes={LABEL: tuple(names)})


def _checked_bit(table: Table, row: int, name: str, value: object) -> bool:
    bit = _bit(value)
    if bit is None:
        fix = "correct the value, or name the columns of labels: --label-column NAME,NAME"
        raise problem(table.at(row), f"{shown(value)} in {name!r}", "0 or 1", fix)
    return bit


def _bit(value: object) -> bool | None:
    return _BITS.get(str(value).strip().lower())
