"""Tables and sentences for people as plain text, laid out by rich."""

import io
import json
from collections.abc import Callable, Container, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from optkit.core.errors import InputError
from optkit.core.printable import escaped

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from rich.table import Table


FORMATS = ("table", "json")
"""Forms of what is listed."""


def table(columns: Sequence[str], left: Container[str], title: str | None = None) -> "Table":
    """A table without rows yet, whose cells keep to one line.

    Args:
        columns: their headings.
        left: the headings of those with text; numbers are aligned to the right.
        title: above it.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")
    for column in columns:
        made.add_column(column, justify="left" if column in left else "right", no_wrap=True)
    return made


def rendered(entries: "Sequence[DataclassInstance]", form: str, as_table: Callable[[], str]) -> str:
    """Render entries as a table, or as JSON with a field for each of theirs.

    Args:
        entries: dataclasses.
        form: one of `FORMATS`.
        as_table: gives the table.

    Raises:
        InputError: no such format.
    """
    if form not in FORMATS:
        raise InputError(f"--format {form}: expected one of {', '.join(FORMATS)}")
    return json.dumps([asdict(entry) for entry in entries], indent=2) + "\n" if form == "json" else as_table()


def plain(*parts: "Table | str", width: int = 200) -> str:
    """Tables and sentences one below the other, without colours and without blanks at the ends of lines.

    Args:
        parts: a sentence is as long as it is.
        width: of the tables, in characters.
    """
    from rich.console import Console

    text = io.StringIO()
    console = Console(file=text, width=width, force_terminal=False, markup=False, emoji=False, highlight=False)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))
    return "\n".join(line.rstrip() for line in escaped(text.getvalue()).splitlines()) + "\n"
