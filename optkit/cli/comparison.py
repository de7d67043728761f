"""The commands that show what recipes cost and bring."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optkit.cli.option_groups import on_project
from optkit.cli.options import Checkpoints, Out, Seed, TaskName

if TYPE_CHECKING:
    from optkit.pipeline.projects import Source

Format = Annotated[str, typer.Option("--format", help="table, json, csv or html", metavar="FORMAT")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (compare, explain):
        app.command()(on_project(command))


def compare(
    task: TaskName,
    project: "tuple[str | None, Source]",
    form: Format = "table",
    out: Out = None,
    plots: Annotated[Path | None, typer.Option(help="also draw the pictures as PNG into this folder", metavar="DIR")] = None,
    checkpoints: Checkpoints = Path("checkpoints"),
) -> None:
    """Print what every recipe costs and brings, as a table, JSON rows, CSV or a page with pictures.

    Example: optkit compare --task sst2 --format html --out report.html --plots plots
    """
    from optkit.core.atomic import write_text
    from optkit.core.errors import InputError
    from optkit.core.printable import say
    from optkit.core.telemetry import own_folder
    from optkit.pipeline import projects, refusals, rows
    from optkit.report import table

    if form not in table.FORMATS:
        raise InputError(f"--format {form}: expected one of {', '.join(table.FORMATS)}")
    home = projects.find(checkpoints, task, *project)
    found = rows.read(checkpoints, task, home.name)
    text = table.render([*found, *refusals.read(home.folder)], form)
    if plots is not None:
        own_folder(os.environ, "MPLCONFIGDIR", "matplotlib")
        from optkit.report import png as drawings

        for path in drawings.draw(found, plots):
            say(path)
    if out is None:
        sys.stdout.write(text)
    else:
        write_text(out, text)


def explain(
    recipe: Annotated[str, typer.Argument(help="name of the recipe", metavar="RECIPE")],
    task: TaskName,
    project: "tuple[str | None, Source]",
    seed: Seed = 0,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or int8; all that the recipe has by default")] = None,
    most: Annotated[int, typer.Option(help="examples to show for each engine, 50 at most", min=0)] = 10,
    checkpoints: Checkpoints = Path("checkpoints"),
) -> None:
    """Print how far each step moves a recipe's answers, and the examples that change most, with their text.

    Example: optkit explain qat_gelu10 --task sst2
    """
    from optkit.pipeline import projects
    from optkit.report import explain as report

    name = projects.find(checkpoints, task, *project).name
    sys.stdout.write(report.explain(recipe, task, checkpoints, seed, precision, most, name))
