"""Warnings and errors of tables in text whose fields are not apart, or in quotes, as their ending says."""

import logging
from collections.abc import Sequence
from pathlib import Path

from optkit.tasks.data.tables import Table, listed, problem, shown

log = logging.getLogger(__name__)


def check_blanks(table: Table) -> None:
    """Warn of fields with a blank before their quotes, which are text then."""
    if quoted := [name for name in table.columns if _in_quotes(name)]:
        fix = "write no blank between a comma and a quote"
        raise problem(f"{table.source}, line 1", f"columns in quotes ({listed(quoted)}), a blank before them", "names", fix)
    fields = (field for column in table.columns.values() for field in column if field[:1].isspace())
    count = sum(_in_quotes(field.strip()) for field in fields)
    if count:
        log.warning(
            "%s: %d fields have a blank before their quotes, which are text then, and stay. If they are not meant as text, "
            "write no blank between a comma and a quote",
            *(table.source, count),
        )


def check_quotes(table: Table) -> None:
    """Warn of fields in quotes with doubled quotes inside, as pandas writes TSV: here quotes are text."""
    if quoted := [name for name in table.columns if _in_quotes(name)]:
        fix = "save it as .csv, or write the TSV without quotes (quoting=csv.QUOTE_NONE)"
        raise problem(f"{table.source}, line 1", f"columns in quotes ({listed(quoted)})", "a TSV without quoting", fix)
    fields = (field for column in table.columns.values() for field in column)
    count = sum(_in_quotes(field) and '""' in field[1:-1] for field in fields)
    if count:
        log.warning(
            "%s: %d fields look quoted, as pandas writes them; in TSV quotes are text, and stay. If they are not meant as "
            "text, save the file as .csv",
            *(table.source, count),
        )


def _in_quotes(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] == '"'


def check_delimiter(path: Path, header: Sequence[str], delimiter: str) -> None:
    """Raise `InputError` for a header of one column that another delimiter would split."""
    others = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
    used = [name for other, name in others.items() if other != delimiter and other in header[0]]
    if len(header) == 1 and used:
        found = f"one column, {shown(header[0])}, with {used[0]} in it"
        fix = "name a file with tabs .tsv; write others with commas"
        raise problem(f"{path}, line 1", found, f"columns apart by {others[delimiter]}", fix)
