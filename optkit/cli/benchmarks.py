"""The commands that put load on engines behind the server: measuring, and finding a configuration."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optkit.cli.option_groups import on_data, on_model
from optkit.cli.options import Checkpoints, Engines, Name, Out, Seed, TaskName, specs_of
from optkit.models.model_settings import ModelSettings
from optkit.tasks.data.data_settings import DataSettings

if TYPE_CHECKING:
    from optkit.recipe.training import Training

OneRecipe = Annotated[str, typer.Argument(help="recipe file, or name: see optkit recipes", metavar="RECIPE")]
Again = Annotated[bool, typer.Option("--again", help="measure anew what was measured before")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (load, tune):
        app.command()(on_data(on_model(command)))


def load(
    recipe: OneRecipe,
    task: TaskName,
    data: DataSettings,
    training: "Training",
    model: ModelSettings,
    p99_ms: Annotated[
        float, typer.Option("--p99-ms", help="bound of the 99th percentile under random load", min=0.1)
    ] = 100.0,
    seconds: Annotated[float, typer.Option(help="least time of each measurement", min=0.1, max=600)] = 5.0,
    beside: Annotated[
        list[str] | None, typer.Option(help="also serve this recipe beside it; may be repeated", metavar="RECIPE")
    ] = None,
    again: Again = False,
    out: Out = None,
    engine: Engines = None,
    name: Name = None,
    seed: Seed = 0,
    checkpoints: Checkpoints = Path("checkpoints"),
) -> None:
    """Put load on a recipe's engines behind the server, with MLPerf's load generator; print each measurement as CSV.

    SingleStream, MultiStream, Offline, 1 to 64 clients, and requests at a rising random rate until the bound breaks; all
    with and without batching by the server. What is measured is written at once, for --out into FILE.partial until it is
    whole; what was measured to the end is kept beside the recipe's results, and shown by `optkit compare`. With --beside,
    what engines on one server do to each other: each alone, all loaded, all asked at once.

    Example: optkit load qat_gelu10 --task sample --p99-ms 50 --out load.csv
    """
    from optkit.core.errors import InputError
    from optkit.core.printable import say
    from optkit.pipeline import preflight
    from optkit.pipeline.load_test import run

    recipes = [recipe, *(beside or ())]
    (spec,), found = specs_of(recipes, task, data, model, training, [seed], engine, checkpoints, name=name)
    if len(found) < len(recipes):  # it is found once, however often it is named
        raise InputError(f"--beside: found {', '.join(recipes)}, expected every recipe once. Leave out what stands twice")
    asked, *others = found
    preflight.require(found, spec)
    for sentence in run(asked, spec, seconds, p99_ms, out, again, others):
        say(sentence)


def tune(
    recipe: OneRecipe,
    task: TaskName,
    data: DataSettings,
    training: "Training",
    model: ModelSettings,
    goal: Annotated[str, typer.Option(help="latency or throughput", metavar="GOAL")] = "throughput",
    p99_ms: Annotated[
        float | None, typer.Option("--p99-ms", help="bound that the 99th percentile has to hold [default: none]", min=0.1)
    ] = None,
    clients: Annotated[
        int | None, typer.Option(help="who ask at the same time [default: 1 for latency, 16 for throughput]", min=1)
    ] = None,
    minutes: Annotated[float, typer.Option(help="how long to search, about", min=0.1)] = 3.0,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or int8, where the recipe has several")] = None,
    again: Again = False,
    engine: Engines = None,
    name: Name = None,
    seed: Seed = 0,
    checkpoints: Checkpoints = Path("checkpoints"),
) -> None:
    """Find how an engine is served best here: instances, threads, batching by the server; print what was tried.

    Latency is the median latency, throughput that of clients who each wait for their answer, both with a 99th percentile
    within the bound. The default stays unless another configuration is better by more than noise. What is found goes into
    config.pbtxt when the recipe is published. Exit status 1: no configuration holds the bound.

    Example: optkit tune qat_gelu10 --task sample --goal throughput --p99-ms 100 --minutes 3
    """
    from optkit.benchmark.choice import KINDS, Goal
    from optkit.core.errors import InputError
    from optkit.core.printable import say
    from optkit.pipeline import preflight
    from optkit.pipeline import tune as tuning

    if goal not in KINDS:
        raise InputError(f"--goal {goal}: expected one of {', '.join(KINDS)}")
    wanted = Goal(goal, clients or (1 if goal == "latency" else 16), p99_ms)
    (spec,), (asked,) = specs_of([recipe], task, data, model, training, [seed], engine, checkpoints, name=name)
    preflight.require([asked], spec)
    found = tuning.run(asked, spec, wanted, minutes, precision, again)
    sys.stdout.write(tuning.render(found))
    say(found["choice"]["reason"])
    if not found["choice"]["held"]:
        raise typer.Exit(1)
