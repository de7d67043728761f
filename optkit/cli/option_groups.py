"""Groups of options that several commands share: each group is a function whose options make one value.

    @grouped(data=data_settings)
    def run(task: TaskName, data: DataSettings) -> None: ...

The command line of `run` has the options of `data_settings` in place of `data`.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optkit.core.errors import InputError
from optkit.core.json_door import parse_json
from optkit.models.model_settings import ModelSettings
from optkit.pipeline.cluster_settings import ClusterSettings
from optkit.tasks.data.data_settings import DataSettings

if TYPE_CHECKING:
    from optkit.pipeline.projects import Source
    from optkit.recipe.training import Training


def grouped(**groups: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that replaces parameters of a command by the options of the functions that make their values.

    Args:
        groups: function with typer's options by the parameter that takes its result.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def taking_options(**given: Any) -> None:
            made = {
                name: make(**{option: given.pop(option) for option in inspect.signature(make).parameters})
                for name, make in groups.items()
            }
            command(**given, **made)

        own = inspect.signature(command)
        expanded = [
            option
            for name, parameter in own.parameters.items()
            for option in (inspect.signature(groups[name]).parameters.values() if name in groups else [parameter])
        ]
        keywords = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in expanded]
        taking_options.__signature__ = own.replace(parameters=keywords)  # type: ignore[attr-defined]
        taking_options.__annotations__ = {option.name: option.annotation for option in keywords}
        return taking_options

    return decorate


def data_settings(
    data: Annotated[
        str | None, typer.Option(help="folder with train and dev files, or hub:OWNER/NAME[/CONFIG]", metavar="DIR")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="column of the text, or of a pair's first", metavar="NAME")] = None,
    text_pair_column: Annotated[str | None, typer.Option(help="column of a pair's second text", metavar="NAME")] = None,
    label_column: Annotated[str | None, typer.Option(help="column of the class", metavar="NAME")] = None,
    group_column: Annotated[
        str | None, typer.Option(help="column of what rows belong to, which intervals draw [default: group]", metavar="NAME")
    ] = None,
    limit_train: Annotated[int | None, typer.Option(help="train on this many rows only", metavar="N")] = None,
    unlabelled: Annotated[
        str | None,
        typer.Option(help="texts without labels, one a line or a table, which teachers answer", metavar="FILE"),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(help="longest input in tokens [default: what the model takes, at most 512]", metavar="N")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="headline metric, as f1 or macro_f1", metavar="NAME")] = None,
    task_option: Annotated[
        list[str] | None, typer.Option(help="a choice that the task alone has; may be repeated", metavar="KEY=VALUE")
    ] = None,
) -> DataSettings:
    """The data that a task is read from."""
    columns = text_column, text_pair_column, label_column, group_column
    options = _pairs(task_option or ())
    return DataSettings(data, limit_train, max_length, metric, *columns, unlabelled=unlabelled, options=options)


def training_settings(
    epochs: Annotated[float | None, typer.Option(help="epochs of the baseline's fine-tuning", metavar="N")] = None,
    steps: Annotated[
        int | None, typer.Option(help="optimiser steps of the baseline's fine-tuning, in place of epochs", metavar="N")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="peak learning rate of the baseline, and of stages that set none", metavar="X")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="training features per optimiser step", metavar="N")] = None,
) -> "Training":
    """Training settings that go before those of the recipes."""
    from optkit.recipe.training import Training

    return Training(epochs=epochs, steps=steps, learning_rate=learning_rate, batch_size=batch_size).checked()


def project_settings(
    name: Annotated[str | None, typer.Option(help="name of the project [default: the only one]", metavar="NAME")] = None,
    data: Annotated[
        str | None, typer.Option(help="data that the project was run on, in place of its name", metavar="DIR")
    ] = None,
    model: Annotated[str | None, typer.Option(help="model that the project started from")] = None,
) -> "tuple[str | None, Source]":
    """The project whose results are meant, by its name or by what it was run on."""
    from optkit.pipeline.projects import Source

    return name, Source.of(data, model)


def model_settings(
    model: Annotated[str | None, typer.Option(help="hub name or folder of the model to start from")] = None,
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit of a model on the hub", metavar="REV")] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="the data's classes in the order of the head's rows, where names do not tell", metavar="A,B,…"),
    ] = None,
) -> ModelSettings:
    """The model to start from."""
    return ModelSettings(model, revision, None if labels is None else _listed(labels))


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    """Return what `--task-option KEY=VALUE` says, by key."""
    if wrong := [text for text in texts if "=" not in text]:
        raise InputError(f"--task-option {', '.join(wrong)}: expected KEY=VALUE")
    return dict(text.split("=", 1) for text in texts)


def _listed(text: str) -> tuple[str, ...]:
    """Return names out of a list with commas, or a JSON list for names that have commas themselves."""
    if not text.startswith("["):
        return tuple(name.strip() for name in text.split(","))
    fix = 'expected names with commas between them, or a list as ["a", "b"]'
    return tuple(map(str, parse_json(text, f"--labels {text}", list[str | int], fix)))


def cluster_settings(
    cluster: Annotated[
        str | None,
        typer.Option(help="steps side by side on a cluster of Ray's: auto, local or ray://HOST:PORT", metavar="WHERE"),
    ] = None,
    train_cores: Annotated[
        int | None, typer.Option(help="cores of a training on the cluster [default: a node's, at most 4]", metavar="N")
    ] = None,
    train_gpus: Annotated[
        float | None, typer.Option(help="GPUs of a training, as 0.25 or 2 [default: 1 where there are any]", metavar="X")
    ] = None,
) -> ClusterSettings:
    """The cluster that steps run on."""
    return ClusterSettings(cluster, train_cores, train_gpus)


on_data = grouped(data=data_settings, training=training_settings)
"""Decorator of the commands that train: their parameters `data` and `training`."""
on_project = grouped(project=project_settings)
"""Decorator of the commands that read results: their parameter `project`."""
on_cluster = grouped(cluster=cluster_settings)
"""Decorator of the commands whose steps may run on a cluster: their parameter `cluster`."""
on_model = grouped(model=model_settings)
"""Decorator of the commands that start from a model: their parameter `model`."""
