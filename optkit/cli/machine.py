"""The command that looks at this machine."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (doctor,):
        app.command()(command)


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
