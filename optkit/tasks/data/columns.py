"""Columns by the user's own names: --text-column, --text-pair-column and --label-column."""

import difflib
from collections.abc import Collection
from dataclasses import replace

from optkit.core.errors import InputError
from optkit.tasks.data.data_settings import DataSettings
from optkit.tasks.data.groups import grouped
from optkit.tasks.data.tables import GROUP, Table, listed, problem

LABEL, TEXTS = "label", ("text", "text_pair")
"""Names that named columns get: tasks look for them."""


def mapped(table: Table, settings: DataSettings, usual: Collection[tuple[str, ...]]) -> Table:
    """Return a table whose columns have the names that the task looks for.

    Args:
        table: as it was read.
        settings: names of columns; those that are None change nothing.
        usual: groups of text columns that the task knows; such columns keep their names.

    Raises:
        InputError: a column is not there, is named twice, or is the second text without a first.
    """
    texts = tuple(name for name in (settings.text_column, settings.text_pair_column) if name is not None)
    _check(table, settings, texts)
    renamed = {name: name for name in table.columns if not texts or name == LABEL}
    if settings.label_column is not None:
        renamed = {old: new for old, new in renamed.items() if old != LABEL} | {settings.label_column: LABEL}
    renamed |= dict(zip(texts, texts if texts in usual else TEXTS, strict=False))
    columns = {new: table.columns[old] for old, new in renamed.items()}
    classes = {renamed[old]: names for old, names in table.classes.items() if old in renamed}
    made = replace(table, columns=columns, classes=classes)
    if settings.group_column is None and GROUP in (*texts, settings.label_column):
        return made
    return grouped(made, settings.group_column, table)


def _check(table: Table, settings: DataSettings, texts: tuple[str, ...]) -> None:
    if settings.text_pair_column is not None and settings.text_column is None:
        raise InputError(f"--text-pair-column {settings.text_pair_column}: no first text; add --text-column NAME")
    named = {"--text-column": settings.text_column, "--text-pair-column": settings.text_pair_column}
    for flag, name in {**named, "--label-column": settings.label_column}.items():
        if name is not None and name not in table.columns:
            close = difflib.get_close_matches(name, table.columns, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "give one of them"
            raise problem(table.source, f"no column {name!r} ({table.named})", f"that of {flag}", hint)
    told = [name for name in (*texts, settings.label_column) if name is not None]
    if len(set(told)) < len(told):
        raise InputError(f"columns {listed(told)}: found one twice, expected another for each text and the class")
