"""Whether a command goes on with the baseline that a project has, or would train another one in its place."""

from collections.abc import Mapping
from typing import Any, TypedDict

from optkit.core import step_cache
from optkit.core.errors import InputError
from optkit.core.step_cache import RECORD
from optkit.pipeline.run_spec import RunSpec

_OPTIONS = ("epochs", "steps", "learning_rate", "batch_size")
"""Settings of a training that the command line has options for."""


class _Trained(TypedDict):
    training: dict[str, Any]
    data: Any


def check(spec: RunSpec) -> None:
    """Raise `InputError` where the finished baseline was trained with other settings, or other data, than are given now.

    For commands that look at what `optkit run` has made: trained anew, the baseline would set aside all that was scored.
    """
    folder = spec.folder(spec.baseline)
    if not (folder / RECORD).is_file():
        return
    made_of = step_cache.made_of(folder, _Trained)
    had, given = made_of["training"], spec.training(spec.baseline).model_dump()
    if other := [name for name, value in given.items() if name in had and had[name] != value]:
        _refuse(
            spec,
            f"with {_said(had, other)}, and would be trained anew with {_said(given, other)}",
            f"Give the settings of its run:{_options(had, other)}",
        )
    if made_of["data"] != spec.source["data"]:
        _refuse(
            spec,
            "on other data, and would be trained anew",
            "Give the options of its run, as --limit-train; if the files have changed, first: optkit run",
        )


def _refuse(spec: RunSpec, why: str, fix: str) -> None:
    raise InputError(
        f"project {spec.home.name!r}: its baseline of seed {spec.seed} was trained {why}, so that its results would be left "
        f"out. {fix}; or choose another --name"
    )


def _said(settings: Mapping[str, Any], names: list[str]) -> str:
    return ", ".join(f"{name} {_text(settings[name])}" for name in names)


def _options(settings: Mapping[str, Any], names: list[str]) -> str:
    """The options that say these settings, ready to be copied."""
    given = [name for name in names if name in _OPTIONS and settings[name] is not None]
    return "".join(f" --{name.replace('_', '-')} {_text(settings[name])}" for name in given)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
