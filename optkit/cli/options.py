"""Options that several commands have, and what they mean."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optkit.tasks.registry import TASKS

if TYPE_CHECKING:
    from optkit.pipeline.run_spec import RunSpec
    from optkit.recipe.recipe import Recipe

*_TASKS, _LAST_TASK = TASKS.own
TaskName = Annotated[str, typer.Option("--task", help=f"{', '.join(_TASKS)} or {_LAST_TASK}", metavar="TASK")]
Data = Annotated[Path | None, typer.Option(help="folder with train and dev files", metavar="DIR")]
Model = Annotated[str | None, typer.Option(help="hub name or folder of the model to start from")]
Engines = Annotated[list[str] | None, typer.Option("--engine", help="kind of engine; may be repeated", metavar="KIND")]
LimitTrain = Annotated[int | None, typer.Option(help="train on this many rows only", metavar="N")]
Checkpoints = Annotated[Path, typer.Option(help="folder of the training output", metavar="DIR")]
Out = Annotated[Path | None, typer.Option(help="write to this file instead of standard output", metavar="FILE")]


def specs_of(
    recipes: list[str],
    task: str,
    data: Path | None,
    model: str | None,
    seeds: list[int],
    kinds: list[str] | None,
    limit_train: int | None,
    checkpoints: Path,
    seconds: float = 4.0,
) -> "tuple[list[RunSpec], list[Recipe]]":
    """What to run on, and what to run, with everything that can be wrong in it found before compute is spent."""
    from optkit import engines
    from optkit.pipeline.run_spec import RunSpec
    from optkit.recipe import finder
    from optkit.tasks.registry import load

    asked, known = finder.find(recipes)
    for kind in kinds or ():
        engines.module(kind)
    loaded = load(task, data, limit_train)
    unique = dict.fromkeys(seeds)
    return [RunSpec(loaded, model, one, checkpoints, known, tuple(kinds or ()), seconds) for one in unique], asked
