"""Classes: from the column `label` to class names and indices."""

import logging
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal

from optkit.core.json_door import encodable
from optkit.core.printable import seen, told_apart
from optkit.tasks.data.tables import Table, listed, problem, shown

log = logging.getLogger(__name__)
_WHOLE_NUMBER = re.compile(r"[+-]?\d{1,18}")
_NO_NUMBER = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_FRACTION = re.compile(r"[+-]?\d*\.\d+")
MOST_CLASSES = 20
"""Classes that may have a row or two each."""


def label_names(table: Table) -> list[str]:
    """The class name of every row.

    Raises:
        InputError: no column `label`, or a row whose label is missing or neither text nor a whole number.
    """
    if "label" not in table.columns:
        found = f"no column 'label' ({table.named})"
        raise problem(table.source, found, "the class of each row in 'label'", "name it: --label-column NAME")
    return [class_name(table, row, value) for row, value in enumerate(table.columns["label"])]


def classes_of(table: Table, names: Sequence[str]) -> tuple[str, ...]:
    """All classes in the order of the logits: the source's own order, else sorted, whole numbers by value.

    Raises:
        InputError: the rows are all of one class.
    """
    present = set(names)
    if len(present) < 2:
        found = f"only one class ({shown(names[0])}) in {len(names)} rows"
        raise problem(table.source, found, "two or more", "add rows of the other classes")
    if table.class_names:
        _check_names(table, table.class_names)
        warn_of_likeness(table, table.class_names)
        return table.class_names
    _check_names(table, sorted(present))
    _check_scores(table, present, len(names))
    _check_numbers(table, present)
    warn_of_likeness(table, present)
    numbers = all(_WHOLE_NUMBER.fullmatch(name) for name in present)
    return tuple(sorted(present, key=(lambda name: (int(name), name)) if numbers else None))


def class_indices(table: Table, names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Each row's place in `classes`.

    Raises:
        InputError: a row's class is not among them.
    """
    index = {name: position for position, name in enumerate(classes)}
    return [class_index(table, row, name, index) for row, name in enumerate(names)]


def class_index(table: Table, row: int, name: str, index: Mapping[str, int]) -> int:
    """Return the place of a row's class among those of the train file."""
    if name not in index:
        fix = "correct the label, or add rows of this class to the train file"
        given, *classes = told_apart([name, *index])
        label = shown(name) if given == name else given
        raise problem(table.at(row), f"label {label}", f"a class of the train file: {listed(classes)}", fix)
    return index[name]


def _check_names(table: Table, names: Sequence[str]) -> None:
    """Raise `InputError` for names that no model can be saved with: one twice, or with half of a character."""
    for name in names:
        if not name.strip() or not encodable(name):
            raise problem(table.source, f"the class {shown(name)}", "whole characters", "give the class a name")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise problem(table.source, f"the class {shown(twice[0])} twice", "every name once", "rename one of them")


def _check_numbers(table: Table, present: Collection[str]) -> None:
    """Raise `InputError` for a number that is written in two ways; warn of numbers beside names."""
    written: dict[int, list[str]] = {}
    for name in sorted(present):
        if _WHOLE_NUMBER.fullmatch(name):
            written.setdefault(int(name), []).append(name)
    if alike := [" and ".join(names) for names in written.values() if len(names) > 1]:
        raise problem(table.source, f"the same number as several classes ({listed(alike)})", "one", "write them alike")
    others = sorted(name for name in present if not _WHOLE_NUMBER.fullmatch(name))
    if written and others:
        numbers = listed(names[0] for names in written.values())
        log.warning(
            "%s: some classes are numbers (%s), others names (%s); write them alike if they are meant as one",
            *(table.source, numbers, listed(others)),
        )


def _check_scores(table: Table, present: Collection[str], rows: int) -> None:
    """Raise `InputError` for labels that measure something: numbers with fractions, or nearly as many as there are rows."""
    fractions = [name for name in present if _FRACTION.fullmatch(name)]
    numbers = all(_FRACTION.fullmatch(name) or _WHOLE_NUMBER.fullmatch(name) for name in present)
    if fractions and numbers:
        found = f"numbers with fractions as labels ({listed(sorted(fractions, key=float))})"
        raise problem(table.source, found, "classes", "give each class a name; classification learns no scores")
    if len(present) > MOST_CLASSES and len(present) > rows / 2:
        found = f"{len(present)} classes in {rows} rows ({listed(sorted(present))})"
        raise problem(table.source, found, "several rows of each class", "name the column of the class: --label-column NAME")


def warn_of_likeness(table: Table, present: Collection[str]) -> None:
    """Warn of classes, or types of entities, whose names differ in capitals alone, or in what is not seen: they may be meant
    as one."""
    written: dict[str, list[str]] = {}
    for name in sorted(present):
        written.setdefault(seen(name).casefold(), []).append(name)
    alike = [" and ".join(told_apart(names)) for names in written.values() if len(names) > 1]
    if alike:
        log.warning("%s: %s are different classes; write them alike if they are one", table.source, listed(alike))


def class_name(table: Table, row: int, value: object) -> str:
    """Return a label as its class name: `ClassLabel` integers are looked up (-1 means unlabelled), 1.0 is 1, true a word.

    Raises:
        InputError: the label is missing, or neither text nor a whole number.
    """
    if isinstance(value, str) and value.strip():
        return _without_point(_written(table, row, value.strip()))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | Decimal) and _is_whole(value) and table.class_names is None:
        return str(int(value))
    if isinstance(value, int):
        if table.class_names is None:
            return str(value)
        if 0 <= value < len(table.class_names):
            return table.class_names[value]
    missing = value is None or value == "" or value == -1 or isinstance(value, str) or value != value
    found = f"no label ({shown(value)})" if missing else f"label {shown(value)} ({type(value).__name__})"
    raise problem(table.at(row), found, "a class: text or a whole number", _fix(table, value, missing))


def _is_whole(value: float | Decimal) -> bool:
    return math.isfinite(value) and value == int(value)


def _fix(table: Table, value: object, missing: bool) -> str:
    """Return what to do about a label that is none."""
    if missing or (isinstance(value, int | float) and table.class_names):
        return "label the row, or remove it"
    several = "; several labels of a row: --task multi_label" if isinstance(value, list | tuple) else ""
    return f"write each class as text, or as a whole number{several}"


def _written(table: Table, row: int, name: str) -> str:
    """Return a label that is text.

    Raises:
        InputError: it is how programs write a missing number, or none that is finite.
    """
    if _NO_NUMBER.fullmatch(name):
        fix = "label the row, or remove it; a class of that name needs another one"
        raise problem(table.at(row), f"no label ({shown(name)})", "a class: text or a whole number", fix)
    return name


def _without_point(name: str) -> str:
    """Return a number without its `.0`, which tables get where a row lacks its label or a column once held one."""
    return name.removesuffix(".0") if _WHOLE_NUMBER.fullmatch(name.removesuffix(".0")) else name
