"""The command line. Whatever is heavy is imported by the command that needs it, so that `--help` answers at once."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Quantize, sparsify and distil BERT-type models, and serve what is measured to be good.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

TaskName = Annotated[str, typer.Option("--task", help="sample, sst2, squad, classification or qa", metavar="TASK")]
Data = Annotated[Path | None, typer.Option(help="folder with train and dev files", metavar="DIR")]
Model = Annotated[str | None, typer.Option(help="hub name or folder of the model to start from")]
Engines = Annotated[list[str] | None, typer.Option("--engine", help="kind of engine; may be repeated", metavar="KIND")]
LimitTrain = Annotated[int | None, typer.Option(help="train on this many rows only", metavar="N")]
Checkpoints = Annotated[Path, typer.Option(help="folder of the training output", metavar="DIR")]
Repository = Annotated[Path, typer.Option(help="model repository", metavar="DIR")]
Format = Annotated[str, typer.Option("--format", help="table, json or csv", metavar="FORMAT")]
Out = Annotated[Path | None, typer.Option(help="write to this file instead of standard output", metavar="FILE")]


@app.command()
def run(
    recipes: Annotated[list[str], typer.Argument(help="recipe files, or names of modules in recipes/", metavar="RECIPE…")],
    task: TaskName,
    data: Data = None,
    model: Model = None,
    seed: Annotated[list[int] | None, typer.Option(help="training seed; may be repeated [default: 0]")] = None,
    engine: Engines = None,
    limit_train: LimitTrain = None,
    checkpoints: Checkpoints = Path("checkpoints"),
) -> None:
    """Train, export, convert, serve and score recipes; print the comparison.

    What is finished already is not done again. Exit status 1: a recipe failed its gate.

    Example: optkit run recipes/*.py --task sst2 --data DIR --model MODEL --seed 0 --seed 1
    """
    from optkit import engines, library, pipeline
    from optkit.job import Job
    from optkit.report import rows, table
    from optkit.tasks import load

    asked, known = library.find(recipes)
    for kind in engine or ():
        engines.module(kind)
    loaded = load(task, data, limit_train)
    results = []
    for one in dict.fromkeys(seed or [0]):
        job = Job(loaded, model, one, checkpoints, known, tuple(engine or ()))
        for recipe in asked:
            results += pipeline.run(recipe, job)
    names = {recipe.name for recipe in asked} | {"baseline_fp32"}
    sys.stdout.write(table.render([row for row in rows.read(checkpoints, task) if row.recipe in names], "table"))
    if any(row.verdict == "fail" for row in results):
        raise typer.Exit(1)


@app.command()
def compare(
    task: TaskName,
    form: Format = "table",
    out: Out = None,
    checkpoints: Checkpoints = Path("checkpoints"),
) -> None:
    """Print what every recipe costs and brings, as a table, JSON rows or CSV.

    Example: optkit compare --task sst2 --format json --out rows.json
    """
    from optkit.errors import InputError
    from optkit.report import rows, table
    from optkit.store import write_text

    if form not in table.FORMATS:
        raise InputError(f"--format {form}: expected one of {', '.join(table.FORMATS)}")
    text = table.render(rows.read(checkpoints, task), form)
    if out is None:
        sys.stdout.write(text)
    else:
        write_text(out, text)


@app.command()
def serve(
    repository: Repository = Path("model_repository"),
    port: Annotated[int, typer.Option(help="port of the HTTP protocol on 127.0.0.1", min=1, max=65535)] = 8000,
) -> None:
    """Serve a model repository with Triton on this machine until Ctrl-C.

    Example: optkit serve --repository model_repository --port 8000
    """
    from optkit.serving import server

    server.serve(repository, port)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script: prints errors in one place and turns them into the exit status."""
    from optkit.errors import OptkitError

    try:
        app(args=arguments, standalone_mode=True)
    except OptkitError as error:
        print(f"optkit: error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        print("optkit: interrupted; finished steps are kept, and the same command goes on from them", file=sys.stderr)
        sys.exit(130)


@app.callback()
def _start(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="also show debugging messages")] = False) -> None:
    import logging

    from optkit.progress import log_to_stderr

    log_to_stderr(logging.DEBUG if verbose else logging.INFO)
