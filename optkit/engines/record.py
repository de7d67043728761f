"""`engine.json`: what an engine is, what built it, and what it needs; and what this CPU can do."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from optkit.errors import InputError, MachineError

FILE = "engine.json"

_X86 = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_ARM = ("asimddp", "i8mm", "bf16")
_FLAGS = (*_X86, *_ARM)
"""The flags of /proc/cpuinfo that decide how fast INT8 and 16-bit products are."""


def cpu_features() -> tuple[str, ...]:
    """Which of the instruction sets that matter here this CPU has; empty where the kernel does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ()
    lines = (line for line in text.splitlines() if line.startswith(("flags", "Features")))
    found = set(next(lines, "").split())
    return tuple(flag for flag in _FLAGS if flag in found)


def available_threads() -> int:
    """Cores that this process may use, which in a container is often fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def empty_folder(folder: Path) -> Path:
    """The folder, checked to exist and to be empty, so that no artefact is mixed with another's files."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; an engine is built into an existing, empty one. Make it first.")
    if found := sorted(path.name for path in folder.iterdir()):
        raise InputError(f"{folder} holds {', '.join(found[:5])}; engines are built into an empty folder. Empty it.")
    return folder


def write_record(folder: Path, *, kind: str, precision: str, variant: str, version: str, inputs: list[str]) -> None:
    """Write `engine.json`. It comes last in a build: a folder with one is a finished engine."""
    content = {
        "kind": kind,
        "precision": precision,
        "variant": variant,
        "runtime_version": version,
        "inputs": inputs,
        "output": "logits",
        "default_threads": available_threads(),
        "cpu_features": list(cpu_features()),
    }
    (folder / FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_record(folder: Path) -> dict[str, Any]:
    """The content of `engine.json`.

    Raises:
        InputError: there is none, or it is not what `write_record` writes.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise InputError(f"{folder} holds no engine: {FILE} is missing. Build one: optkit build RECIPE --task TASK")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        missing = {"kind", "precision", "variant", "inputs", "cpu_features"} - content.keys()
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} is not an engine's record ({error}). Build the engine again.") from error
    if missing:
        raise InputError(f"{path} lacks {', '.join(sorted(missing))}. Build the engine again.")
    return content


def require_features(folder: Path, wanted: Iterable[str]) -> None:
    """Raise `MachineError` where an engine was optimised for instructions that this CPU lacks."""
    if missing := sorted(set(wanted) - set(cpu_features())):
        raise MachineError(
            f"The engine in {folder} was built on a CPU with {', '.join(missing)}, which this one lacks; it has "
            f"{', '.join(cpu_features()) or 'none of them'}. Build the engine again on this machine."
        )
