"""The command that validates what a running server answers."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from optkit.cli.options import Checkpoints, TaskName


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(validate)


def validate(
    recipe: Annotated[str, typer.Argument(help="name of the recipe", metavar="RECIPE")],
    task: TaskName,
    url: Annotated[str, typer.Option(help="HTTP address of the running server", metavar="HOST:PORT")],
    model_name: Annotated[
        str | None, typer.Option(help="model on the server [default: TASK_RECIPE]", metavar="NAME")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="folder with train and dev files", metavar="DIR")] = None,
    precision: Annotated[str | None, typer.Option(help="of the engine, where the recipe has several")] = None,
    seed: Annotated[int, typer.Option(help="training seed of the engine", min=0)] = 0,
    timeout: Annotated[float, typer.Option(help="seconds for each request", min=0.1)] = 60.0,
    checkpoints: Checkpoints = Path("checkpoints"),
) -> None:
    """Score the dev split through a server that runs already, and compare it with the recipe's engine and its baseline.

    The model may be of any backend of Triton that takes the recipe's inputs. Exit status 1: its answers are not the
    engine's, depend on how they are asked for, or are worse than the gate allows.

    Example: optkit validate qat_gelu10 --task sample --url 127.0.0.1:8000
    """
    from optkit.pipeline.remote_validation import Target
    from optkit.pipeline.remote_validation import validate as score
    from optkit.report import explain
    from optkit.tasks.registry import load

    target = Target(url, model_name, timeout)
    row = score(recipe, load(task, data), checkpoints, target, seed, precision)
    sys.stdout.write(explain.judged(row))
    if row.verdict == "fail":
        raise typer.Exit(1)
