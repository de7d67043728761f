"""`engine.json`: what an engine is, what built it, and what it needs."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypedDict

from optkit.core.cpu import available_threads, cpu_features
from optkit.core.errors import InputError, MachineError
from optkit.core.json_door import read_json

FILE = "engine.json"


class Fields(TypedDict):
    """What every engine says of itself."""

    kind: str
    precision: str
    variant: str
    inputs: list[str]
    cpu_features: list[str]


def empty_folder(folder: Path) -> Path:
    """The folder, checked to exist and to be empty, so that no artefact is mixed with another's files."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; an engine is built into an existing, empty one. Make it first.")
    if found := sorted(path.name for path in folder.iterdir()):
        raise InputError(f"{folder} holds {', '.join(found[:5])}; engines are built into an empty folder. Empty it.")
    return folder


def write_record(
    folder: Path, *, kind: str, precision: str, variant: str, version: str, inputs: list[str], **details: Any
) -> None:
    """Write `engine.json`, with what else a kind has to say of itself. It comes last: a folder with one is finished."""
    content = {
        "kind": kind,
        "precision": precision,
        "variant": variant,
        "runtime_version": version,
        "inputs": inputs,
        "output": "logits",
        "default_threads": available_threads(),
        "cpu_features": list(cpu_features()),
        **details,
    }
    (folder / FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_record(folder: Path, fields: type[Any] = Fields) -> dict[str, Any]:
    """The content of `engine.json`.

    Args:
        folder: of the engine.
        fields: `Fields`, or with what else a kind says of itself.

    Raises:
        InputError: there is none, or it is not what `write_record` writes.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise InputError(f"{folder} holds no engine: {FILE} is missing. Build one: optkit build RECIPE --task TASK")
    content: dict[str, Any] = read_json(path, fields, "build the engine again")
    return content


def require_features(folder: Path, wanted: Iterable[str]) -> None:
    """Raise `MachineError` where an engine was optimised for instructions that this CPU lacks."""
    if missing := sorted(set(wanted) - set(cpu_features())):
        raise MachineError(
            f"The engine in {folder} was built on a CPU with {', '.join(missing)}, which this one lacks; it has "
            f"{', '.join(cpu_features()) or 'none of them'}. Build the engine again on this machine."
        )
