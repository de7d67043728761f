"""Groups: what rows belong to, such as the sentence that they are phrases of, in a column of its own."""

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from optkit.tasks.data.tables import GROUP, Table, listed, problem, shown

_NUMBER = re.compile(r"[+-]?\d{1,18}(\.0*)?")
_NOTHING = re.compile(r"nan|none|null", re.IGNORECASE)
"""What programs write where a table has nothing."""


def grouped(table: Table, column: str | None, source: Table | None = None) -> Table:
    """Return a table whose column `GROUP` has the group of each row as text; without one where there are none.

    Args:
        table: rows on their way to a task.
        column: name of the column with the groups; None for `GROUP`, if there is one.
        source: table with that column, where `table` has lost it.

    Raises:
        InputError: a row has no group, or a number is written in two ways; the message names it.
    """
    name, known = column or GROUP, source or table
    columns = {other: values for other, values in table.columns.items() if other != GROUP}
    if name in known.columns:
        found = [_name(known.at(row), name, value) for row, value in enumerate(known.columns[name])]
        columns[GROUP] = _written_alike(found, str(known.source), name)
    classes = {other: names for other, names in table.classes.items() if other != GROUP}
    return replace(table, columns=columns, classes=classes)


def kept(table: Table, rows: Sequence[int]) -> dict[str, list[str]]:
    """Return the groups of some rows of a table as a column; no column where it has none."""
    return {GROUP: [table.columns[GROUP][row] for row in rows]} if GROUP in table.columns else {}


def of_dictionaries(rows: Sequence[Mapping[str, Any]], column: str | None, source: str) -> dict[str, list[str]]:
    """Return the groups of rows that are dictionaries, as `kept` does.

    Args:
        rows: a row that has no group stands for nothing where another has one.
        column: name of the key with the groups; None for `GROUP`.
        source: where rows are from, for messages.
    """
    name = column or GROUP
    if all(row.get(name) is None for row in rows):
        return {}
    found = [_name(f"{source}, row {number}", name, row.get(name)) for number, row in enumerate(rows, 1)]
    return {GROUP: _written_alike(found, source, name)}


def of_queries(queries: Sequence[Hashable], groups: Sequence[str], source: str) -> list[str]:
    """Return the group of each query, in the order of their first rows.

    Args:
        queries: query of each row.
        groups: group of each row.
        source: where rows are from, for messages.

    Raises:
        InputError: rows of one query are of several groups.
    """
    found: dict[Hashable, str] = {}
    for query, group in zip(queries, groups, strict=True):
        if found.setdefault(query, group) != group:
            several = f"the query {shown(query)} in the groups {found[query]!r} and {group!r}"
            raise problem(source, several, "one group for all documents of a query", "correct the groups")
    return list(found.values())


def _name(where: str, column: str, value: object) -> str:
    """A group as text."""
    if isinstance(value, str) and value.strip() and not _NOTHING.fullmatch(value.strip()):
        return value.strip()
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:  # 3.0 is a 3 beside gaps
        return str(int(value))
    found = "nothing" if value is None or value == "" else shown(value)
    expected = "the name or the number of its group, as other rows have it"
    fix = "add it, or name another column, as that of the text: --group-column NAME"
    raise problem(where, f"{found} in {column!r}", expected, fix)


def _written_alike(names: list[str], source: str, column: str) -> list[str]:
    """Return the names of groups, unless one number is written in several ways: as many groups too many would be drawn."""
    written: dict[int, set[str]] = {}
    for name in dict.fromkeys(names):
        if _NUMBER.fullmatch(name):
            written.setdefault(int(name.partition(".")[0]), set()).add(name)
    if several := [" and ".join(sorted(same)) for same in written.values() if len(same) > 1]:
        raise problem(
            source, f"the same number as several groups ({listed(several)}) in {column!r}", "one", "write them alike"
        )
    return names
