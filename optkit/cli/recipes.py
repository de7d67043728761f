"""The commands that run recipes, and build their engines."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optkit.cli.measuring import measuring
from optkit.cli.option_groups import on_cluster, on_data, on_model
from optkit.cli.options import (
    BuildOption,
    Checkpoints,
    Engines,
    Name,
    Seed,
    Seeds,
    TaskName,
    engine_options,
    specs_of,
)
from optkit.cli.tensorrt_flags import with_flags
from optkit.models.model_settings import ModelSettings
from optkit.pipeline.cluster_settings import ClusterSettings
from optkit.tasks.data.data_settings import DataSettings

if TYPE_CHECKING:
    from optkit.recipe.training import Training


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (on_cluster(run), with_flags(build)):
        app.command()(on_data(on_model(command)))


def run(
    recipes: Annotated[list[str], typer.Argument(help="recipe files, or names: see optkit recipes", metavar="RECIPE…")],
    task: TaskName,
    data: DataSettings,
    training: "Training",
    model: ModelSettings,
    cluster: ClusterSettings,
    name: Name = None,
    seed: Seeds = None,
    engine: Engines = None,
    option: BuildOption = None,
    seconds: Annotated[float, typer.Option(help="time to measure each served model at each batch size", min=0)] = 4.0,
    checkpoints: Checkpoints = Path("checkpoints"),
) -> None:
    """Train, export, convert, serve and score recipes; print the comparison.

    What is finished already is not done again. Exit status 1: a recipe failed its gate, or does not apply to the model.

    Example: optkit run recipes/*.py --task sst2 --data DIR --model MODEL --seed 0 --seed 1
    """
    from optkit.evaluation.results import REFUSED, Result
    from optkit.pipeline import refusals, rows
    from optkit.pipeline.run import in_order, run_all
    from optkit.recipe.recipe import modules_of
    from optkit.recipe.stage import BASELINE
    from optkit.report import table

    checkpoints = cluster.seen(checkpoints)
    with ExitStack() as stack:
        on = stack.enter_context(measuring(engine or (), cluster))
        options = engine_options(engine, option)
        specs, asked = specs_of(
            recipes, task, data, model, training, seed or [0], engine, checkpoints, seconds, options, name, new=True
        )
        found = run_all(asked, specs, stack.enter_context(on(modules_of(asked), specs[0])) or in_order)
    if not found:  # not the main process of several
        return
    names = {BASELINE, *(recipe.name for recipe in asked)}
    home = specs[0].home
    results: list[Result] = [*rows.read(checkpoints, task, home.name), *refusals.read(home.folder)]
    sys.stdout.write(table.render([result for result in results if result.recipe in names], "table"))
    if any(result.verdict in ("fail", REFUSED) for result in found):
        raise typer.Exit(1)


def build(
    recipe: Annotated[str, typer.Argument(help="recipe file, or name: see optkit recipes", metavar="RECIPE")],
    task: TaskName,
    data: DataSettings,
    training: "Training",
    model: ModelSettings,
    engine: Engines = None,
    option: BuildOption = None,
    out: Annotated[Path | None, typer.Option(help="copy the engines to this folder", metavar="DIR")] = None,
    flavour: Annotated[
        str | None,
        typer.Option(
            help="make --out a model repository, of optkit's server or NVIDIA's: python or native; or a folder that "
            "another library loads: sentence-transformers or optimum"
        ),
    ] = None,
    container: Annotated[
        str | None, typer.Option(help="native: tag of the container, such as 26.07 or 26.09=11.3", metavar="TAG[=VERSION]")
    ] = None,
    text: Annotated[
        bool, typer.Option("--text", help="python, native: add the models around the engine that take text")
    ] = False,
    name: Name = None,
    seed: Seed = 0,
    checkpoints: Checkpoints = Path("checkpoints"),
) -> None:
    """Train, export and convert one recipe, without serving it; print the folder of its engines.

    Engines that optkit run has scored stay where they are.

    With --flavour it is a model repository, and the command that serves it is printed to standard error; or
    a folder that sentence-transformers or transformers (by optimum) loads, and the line that does so. With --text too,
    native models need an image with optkit, whose Dockerfile is written: the command wants optkit's wheel beside it.
    Options of TensorRT: batch, sequence, workspace_mb, variant, sparse, tf32, refit, version_compatible, hardware,
    optimization_level, timing_cache; several profiles as --option batch=1,1,1/1,8,64 --option sequence=1,64,128. Without a
    GPU its plans are built, not timed.

    Example: optkit build qat_gelu10 --task sample --engine openvino --out engines
    """
    from optkit.core.printable import say
    from optkit.engines.build_only import only_built
    from optkit.pipeline import library_folder, preflight, repository_builder
    from optkit.pipeline.steps.build_engines import converted
    from optkit.pipeline.steps.build_plans import planned

    options = engine_options(engine, option)
    library = flavour if flavour in library_folder.FLAVOURS else None
    if library is not None:
        library_folder.check(library, out, engine or (), container, text)
    else:
        repository_builder.check(flavour, out, engine or (), container, options, text)
    plans = only_built(engine or ())
    (spec,), (asked,) = specs_of(
        [recipe], task, data, model, training, [seed], engine, checkpoints, options=options, name=name
    )
    if library is not None:
        library_folder.check_task(library, spec)
    preflight.require([asked], spec)
    if library is not None and out is not None:
        say(f"load it: {library_folder.write(asked, spec, library, out)}")
        print(out)
        return
    folder = planned(asked, spec, plans) if plans else converted(asked, spec, beside_scored=True)
    if out is not None and flavour is not None:
        say(f"serve it: {repository_builder.write(asked, spec, folder, out, flavour, container, text)}")
    elif out is not None:
        repository_builder.copy(folder, out)
    print(out or folder)
