"""The command that divides a table into train and dev."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from optkit.cli.options import LARGEST_SEED
from optkit.core.errors import InputError
from optkit.core.printable import escaped
from optkit.tasks.data.data_settings import DataSettings

WAYS = ("sentence", "group")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(split)


def split(
    table: Annotated[Path, typer.Argument(help="file of rows: TSV, CSV, JSON, JSON Lines or Parquet", metavar="TABLE")],
    by: Annotated[str, typer.Option(help="sentence: texts that rows are pieces of; group: a column", metavar="WAY")],
    out: Annotated[Path, typer.Option(help="folder for train and dev", metavar="DIR")],
    dev: Annotated[float, typer.Option(help="share of the rows for dev, at most", metavar="X")] = 0.1,
    seed: Annotated[int, typer.Option(help="seed of the draw", min=0, max=LARGEST_SEED)] = 0,
    text_column: Annotated[str | None, typer.Option(help="column of the text, or of a pair's first", metavar="NAME")] = None,
    text_pair_column: Annotated[str | None, typer.Option(help="column of a pair's second text", metavar="NAME")] = None,
    group_column: Annotated[str | None, typer.Option(help="column of the groups [default: group]", metavar="NAME")] = None,
) -> None:
    """Divide a table into train and dev such that rows that belong together stay on one side; say what still leaks.

    Rows of a group are right or wrong together, and intervals of scores on dev draw the groups.

    Example: optkit split reviews.tsv --by sentence --out reviews
    """
    from optkit.tasks.data import table_split

    if by not in WAYS:
        raise InputError(f"--by {by}: expected {' or '.join(WAYS)}")
    if not 0 < dev < 1:
        raise InputError(f"--dev {dev:g}: expected a share between 0 and 1, without them")
    columns = DataSettings(text_column=text_column, text_pair_column=text_pair_column, group_column=group_column)
    report = table_split.split(table, by, out, dev, seed, columns)
    sys.stdout.write("".join(f"{escaped(line)}\n" for line in report.lines()))
