"""The command line. Whatever is heavy is imported by the command that needs it, so that `--help` answers at once."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import benchmarks, publishing, remote_validation
from optkit.cli.options import (
    BuildOption,
    Checkpoints,
    Data,
    Engines,
    LimitTrain,
    Model,
    Out,
    TaskName,
    engine_options,
    specs_of,
)
from optkit.cli.publishing import Repository
from optkit.cli.tensorrt_flags import with_flags

INTERRUPTED = 130

app = typer.Typer(
    help="Quantize, sparsify and distil BERT-type models, and serve what is measured to be good.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Format = Annotated[str, typer.Option("--format", help="table, json, csv or html", metavar="FORMAT")]


@app.command()
def run(
    recipes: Annotated[list[str], typer.Argument(help="recipe files, or names of modules in recipes/", metavar="RECIPE…")],
    task: TaskName,
    data: Data = None,
    model: Model = None,
    seed: Annotated[list[int] | None, typer.Option(help="training seed; may be repeated [default: 0]", min=0)] = None,
    engine: Engines = None,
    option: BuildOption = None,
    limit_train: LimitTrain = None,
    seconds: Annotated[float, typer.Option(help="time to measure each served model at each batch size", min=0)] = 4.0,
    checkpoints: Checkpoints = Path("checkpoints"),
) -> None:
    """Train, export, convert, serve and score recipes; print the comparison.

    What is finished already is not done again. Exit status 1: a recipe failed its gate.

    Example: optkit run recipes/*.py --task sst2 --data DIR --model MODEL --seed 0 --seed 1
    """
    from optkit.engines import registry as engines
    from optkit.pipeline import rows
    from optkit.pipeline.run import run_all
    from optkit.recipe.stage import BASELINE
    from optkit.report import table
    from optkit.serving import install

    install.find()  # a machine without a server should say so before it trains
    for kind in engine or ():
        engines.require_running(kind)
    options = engine_options(engine, option)
    specs, asked = specs_of(recipes, task, data, model, seed or [0], engine, limit_train, checkpoints, seconds, options)
    found = run_all(asked, specs)
    if not found:  # not the main process of several
        return
    names = {BASELINE, *(recipe.name for recipe in asked)}
    sys.stdout.write(table.render([row for row in rows.read(checkpoints, task) if row.recipe in names], "table"))
    if any(row.verdict == "fail" for row in found):
        raise typer.Exit(1)


@app.command()
def compare(
    task: TaskName,
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
    from optkit.pipeline import rows
    from optkit.report import table

    if form not in table.FORMATS:
        raise InputError(f"--format {form}: expected one of {', '.join(table.FORMATS)}")
    found = rows.read(checkpoints, task)
    text = table.render(found, form)
    if plots is not None:
        from optkit.report import png as drawings

        for path in drawings.draw(found, plots):
            print(path, file=sys.stderr)
    if out is None:
        sys.stdout.write(text)
    else:
        write_text(out, text)


@app.command()
def explain(
    recipe: Annotated[str, typer.Argument(help="name of the recipe", metavar="RECIPE")],
    task: TaskName,
    seed: Annotated[int, typer.Option(help="training seed of the run", min=0)] = 0,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or int8; all that the recipe has by default")] = None,
    most: Annotated[int, typer.Option(help="examples to show for each engine, 50 at most", min=0)] = 10,
    checkpoints: Checkpoints = Path("checkpoints"),
) -> None:
    """Print how far each step moves a recipe's answers, and the examples that change most, with their text.

    Example: optkit explain qat_gelu10 --task sst2
    """
    from optkit.report import explain as report

    sys.stdout.write(report.explain(recipe, task, checkpoints, seed, precision, most))


@app.command()
@with_flags
def build(
    recipe: Annotated[str, typer.Argument(help="recipe file, or name of a module in recipes/", metavar="RECIPE")],
    task: TaskName,
    engine: Engines = None,
    option: BuildOption = None,
    out: Annotated[Path | None, typer.Option(help="copy the engines to this folder", metavar="DIR")] = None,
    flavour: Annotated[
        str | None, typer.Option(help="make --out a model repository, of optkit's server or NVIDIA's: python or native")
    ] = None,
    container: Annotated[
        str | None, typer.Option(help="native: tag of the container, such as 26.07 or 26.09=11.3", metavar="TAG[=VERSION]")
    ] = None,
    data: Data = None,
    model: Model = None,
    seed: Annotated[int, typer.Option(help="training seed", min=0)] = 0,
    limit_train: LimitTrain = None,
    checkpoints: Checkpoints = Path("checkpoints"),
) -> None:
    """Train, export and convert one recipe, without serving it; print the folder of its engines.

    With --flavour it is a model repository, and the command that serves it is printed to standard error.
    Options of TensorRT: batch, sequence, workspace_mb, variant, sparse, tf32, refit, version_compatible, hardware,
    optimization_level, timing_cache; several profiles as --option batch=1,1,1/1,8,64 --option sequence=1,64,128. Without a
    GPU its plans are built, not timed.

    Example: optkit build qat_gelu10 --task sample --engine openvino --out engines
    """
    from optkit.engines.build_only import only_built
    from optkit.pipeline import repository_builder
    from optkit.pipeline.steps.build_engines import converted
    from optkit.pipeline.steps.build_plans import planned

    options = engine_options(engine, option)
    repository_builder.check(flavour, out, engine or (), container, options)
    plans = only_built(engine or ())
    (spec,), (asked,) = specs_of([recipe], task, data, model, [seed], engine, limit_train, checkpoints, options=options)
    folder = planned(asked, spec, plans) if plans else converted(asked, spec)
    if out is not None and flavour is not None:
        print(f"serve it: {repository_builder.write(asked, spec, folder, out, flavour, container)}", file=sys.stderr)
    elif out is not None:
        repository_builder.copy(folder, out)
    print(out or folder)


benchmarks.register(app)
publishing.register(app)
remote_validation.register(app)


@app.command()
def serve(
    repository: Repository = publishing.DEFAULT,
    port: Annotated[int, typer.Option(help="port of the HTTP protocol on 127.0.0.1", min=1, max=65535)] = 8000,
    unpublished: Annotated[
        bool, typer.Option("--unpublished", help="the repository is one of `optkit build --flavour python`")
    ] = False,
    cache_mb: Annotated[
        int, typer.Option(help="memory for answers of models published with --cache; 0: they go without", min=0, metavar="N")
    ] = 0,
) -> None:
    """Serve a model repository with Triton on this machine until Ctrl-C; refused where a file is not as it was published.

    Example: optkit serve --repository model_repository --port 8000
    """
    from optkit.registry import remote
    from optkit.registry.verify import require
    from optkit.serving import server

    with remote.reading(repository, to_serve=True) as folder:
        if not unpublished:
            require(folder)
        server.serve(folder, port, cache_mb=cache_mb)


@app.command()
def doctor(
    model: Annotated[Path | None, typer.Option(help="folder of a model, to look at it before it is trained")] = None,
) -> None:
    """Tell what this machine can do and how to get what it lacks; with --model, what TensorRT can do with a model.

    Example: optkit doctor --model checkpoints/sample/ptq_int8/seed-0
    """
    from optkit.engines.tensorrt import model_check
    from optkit.report import doctor as machine

    parts = {f"model {model}": model_check.of_model(model)} if model else machine.examine()
    sys.stdout.write(machine.render(parts))


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script: prints errors in one place and turns them into the exit status."""
    from optkit.core.errors import OptkitError

    try:
        app(args=arguments, standalone_mode=True)
    except OptkitError as error:
        print(f"optkit: error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:  # into which typer turns Ctrl-C
            raise
        print("optkit: interrupted; finished steps are kept, and the same command goes on from them", file=sys.stderr)
        sys.exit(INTERRUPTED)


@app.callback()
def _start(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="also show debugging messages")] = False) -> None:
    import logging

    from optkit.core.progress import log_to_stderr

    log_to_stderr(logging.DEBUG if verbose else logging.INFO)
