"""The flags that version 0.1 had for TensorRT alone: `--batch X` is `--option batch=X`, which help shows in their stead."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from optkit.core.errors import InputError

KIND = "tensorrt"


def _flags(
    batch: Annotated[str | None, typer.Option(hidden=True)] = None,
    sequence: Annotated[str | None, typer.Option(hidden=True)] = None,
    workspace_mb: Annotated[int | None, typer.Option(hidden=True)] = None,
    variant: Annotated[str | None, typer.Option(hidden=True)] = None,
    sparse: Annotated[bool | None, typer.Option(hidden=True)] = None,
    refit: Annotated[bool | None, typer.Option("--refit", hidden=True)] = None,
    version_compatible: Annotated[bool | None, typer.Option("--version-compatible", hidden=True)] = None,
    hardware: Annotated[str | None, typer.Option(hidden=True)] = None,
    optimization_level: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Declares them; their names are those of the options."""


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """A command that takes the flags too, and hands them to its parameter `option`."""
    own, flags = inspect.signature(command), inspect.signature(_flags)

    @functools.wraps(command)
    def taking_flags(**given: Any) -> None:
        found = {name: given.pop(name) for name in flags.parameters}
        texts = [f"{name}={value}" for name, value in found.items() if value is not None]
        if texts and KIND not in (given["engine"] or ()):
            raise InputError(f"options of TensorRT were given without it: add --engine {KIND}, or leave them out")
        command(**{**given, "option": [*(given["option"] or ()), *texts]})

    parameters = [*own.parameters.values(), *flags.parameters.values()]
    taking_flags.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    taking_flags.__annotations__ = command.__annotations__ | _flags.__annotations__
    return taking_flags
