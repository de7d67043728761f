"""The command that puts load on engines behind the server."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from optkit.cli_options import Checkpoints, Data, Engines, LimitTrain, Model, Out, TaskName, jobs_of

OneRecipe = Annotated[str, typer.Argument(help="recipe file, or name of a module in recipes/", metavar="RECIPE")]
Seed = Annotated[int, typer.Option(help="training seed", min=0)]
Again = Annotated[bool, typer.Option("--again", help="measure anew what was measured before")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (load,):
        app.command()(command)


def load(
    recipe: OneRecipe,
    task: TaskName,
    p99_ms: Annotated[
        float, typer.Option("--p99-ms", help="bound of the 99th percentile under random load", min=0.1)
    ] = 100.0,
    seconds: Annotated[float, typer.Option(help="least time of each measurement", min=0.1)] = 5.0,
    again: Again = False,
    out: Out = None,
    engine: Engines = None,
    data: Data = None,
    model: Model = None,
    seed: Seed = 0,
    limit_train: LimitTrain = None,
    checkpoints: Checkpoints = Path("checkpoints"),
) -> None:
    """Put load on a recipe's engines behind the server, with MLPerf's load generator; print each measurement as CSV.

    SingleStream, MultiStream, Offline, 1 to 64 clients, and requests at a rising random rate until the bound breaks; all
    with and without batching by the server. What is measured is written at once and kept when a run is broken off; what
    was measured to the end is kept beside the recipe's results, and shown by `optkit compare`.

    Example: optkit load qat_gelu10 --task sample --p99-ms 50 --out load.csv
    """
    from optkit.load import run

    (job,), (asked,) = jobs_of([recipe], task, data, model, [seed], engine, limit_train, checkpoints)
    for sentence in run(asked, job, seconds, p99_ms, out, again):
        print(sentence, file=sys.stderr)
