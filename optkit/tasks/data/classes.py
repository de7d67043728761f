"""Classes: from the column `label` to class names and indices."""

import re
from collections.abc import Sequence

from optkit.tasks.data.tables import Table, listed, problem, shown

_WHOLE_NUMBER = re.compile(r"[+-]?\d+")


def label_names(table: Table) -> list[str]:
    """The class name of every row.

    Raises:
        InputError: no column `label`, or a row whose label is missing or neither text nor a whole number.
    """
    if "label" not in table.columns:
        found = f"no column 'label' (columns: {listed(table.columns)})"
        raise problem(table.source, found, "the class of each row in 'label'", "name that column 'label'")
    return [_name(table, row, value) for row, value in enumerate(table.columns["label"])]


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
        return table.class_names
    numbers = all(_WHOLE_NUMBER.fullmatch(name) for name in present)
    return tuple(sorted(present, key=(lambda name: (int(name), name)) if numbers else None))


def class_indices(table: Table, names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Each row's place in `classes`.

    Raises:
        InputError: a row's class is not among them.
    """
    index = {name: position for position, name in enumerate(classes)}
    for row, name in enumerate(names):
        if name not in index:
            fix = "correct the label, or add rows of this class to the train file"
            raise problem(table.at(row), f"label {shown(name)}", f"a class of the train file: {listed(classes)}", fix)
    return [index[name] for name in names]


def _name(table: Table, row: int, value: object) -> str:
    """A label as its class name; a `ClassLabel` integer is looked up, -1 there means unlabelled."""
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        if table.class_names is None:
            return str(value)
        if 0 <= value < len(table.class_names):
            return table.class_names[value]
    missing = value is None or value == "" or value == -1 or isinstance(value, str)
    found = f"no label ({shown(value)})" if missing else f"label {shown(value)} ({type(value).__name__})"
    raise problem(table.at(row), found, "a class: text or a whole number", "label the row, or remove it")
