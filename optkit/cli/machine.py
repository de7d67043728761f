"""The command that looks at this machine, or at a model."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from optkit.cli.option_groups import data_settings, grouped, model_settings
from optkit.models.model_settings import ModelSettings
from optkit.tasks.data.data_settings import DataSettings

if TYPE_CHECKING:
    from pathlib import Path

    from optkit.pipeline.run_spec import RunSpec


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(grouped(data=data_settings, model=model_settings)(doctor))


def doctor(
    model: ModelSettings,
    data: DataSettings,
    task: Annotated[str, typer.Option(help="with --model: the task that it is looked at for", metavar="TASK")] = "sample",
) -> None:
    """Tell what this machine can do and how to get what it lacks; with --model, what can be done with a model.

    The checks of a model are those before a run: its layers and inputs, its graph, the recipes that apply, TensorRT.
    Exit status 1: not every recipe applies; 2: the model cannot be used.

    Example: optkit doctor --model distilbert/distilbert-base-uncased --task sst2
    """
    from optkit.report import doctor as machine

    if model.source is None:
        sys.stdout.write(machine.render(machine.examine()))
        return
    from optkit.core import temporary
    from optkit.report import model_doctor

    with temporary.folder("optkit-doctor") as scratch:
        parts, status = model_doctor.examine(_spec(model, data, task, scratch))
    sys.stdout.write(machine.render({f"{part} {model.source}" if part == "model" else part: parts[part] for part in parts}))
    raise typer.Exit(status)


def _spec(model: ModelSettings, data: DataSettings, task: str, scratch: "Path") -> "RunSpec":
    """The model with every recipe that is known here."""
    from optkit.pipeline.run_spec import RunSpec
    from optkit.recipe import finder
    from optkit.tasks.registry import of_settings

    _, known = finder.find([])
    loaded = of_settings(task, data)
    return RunSpec(loaded, model.source, 0, scratch, known, revision=model.revision, labels=model.labels)
