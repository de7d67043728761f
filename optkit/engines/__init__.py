"""Engines: one runtime's built artefact each, in a folder of its own with an `engine.json` that says what it is.

An engine kind is a module with these functions, and nothing else is known of it elsewhere:

* `precisions(graph_is_quantised)`: what this machine can build from such a graph, of "fp32", "bf16" and "int8";
* `variants(precision)`: the ways to build it that are worth comparing, the first being the default;
* `build(graph, precision, folder, variant=None)`: write the artefact and `engine.json` into an existing, empty folder;
* `load(folder, threads=None)`: a handle, ready to run;
* `infer(handle, feed)`: logits, float32, of `{name: int64 [batch, sequence]}`;
* `evidence(handle)`: what the runtime says it runs, above all `int8_gemm_share`.

The modules import their runtime, NumPy and the standard library only: they also run inside the server's processes.
"""

import importlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from optkit.cpu import available_threads, cpu_features
from optkit.engines.record import read_record
from optkit.errors import InputError, MachineError

KINDS = ("openvino", "onnxruntime")


class Engine(NamedTuple):
    """A loaded engine: the module that knows how to run it, and that module's handle."""

    kind: str
    module: ModuleType
    handle: Any


def installed() -> tuple[str, ...]:
    """The engine kinds whose runtime is installed.

    Raises:
        MachineError: there is none.
    """
    if not (found := tuple(kind for kind in KINDS if _version(kind))):
        raise MachineError(f"No engine's runtime is installed. Run: pip install {KINDS[0]}")
    return found


def machine() -> dict[str, Any]:
    """What engines depend on beside the graph: the CPU, the cores this process may use, the runtimes' versions."""
    return {
        "cpu_features": list(cpu_features()),
        "threads": available_threads(),
        "runtimes": {kind: version for kind in KINDS if (version := _version(kind))},
    }


def _version(kind: str) -> str | None:
    try:
        return importlib.metadata.version(kind)
    except importlib.metadata.PackageNotFoundError:
        return None


def module(kind: str) -> ModuleType:
    """The module of an engine kind.

    Raises:
        InputError: no such kind.
        MachineError: its runtime is not installed.
    """
    if kind not in KINDS:
        raise InputError(f"Engine kind {kind!r} is unknown; expected one of {', '.join(KINDS)}.")
    try:
        return importlib.import_module(f"optkit.engines.{kind}")
    except ModuleNotFoundError as error:
        if error.name != kind:
            raise
        raise MachineError(
            f"The {kind} engine needs the Python package {kind}, which is not installed. Run: pip install {kind}"
        ) from error


def load(folder: Path, threads: int | None = None) -> Engine:
    """Load the engine in a folder, whatever its kind; `threads` None takes every core this process may use.

    Raises:
        InputError: the folder holds no engine.
        MachineError: the runtime is not installed, or the CPU lacks what the engine was built for.
    """
    kind = read_record(folder)["kind"]
    found = module(kind)
    return Engine(kind, found, found.load(folder, threads))


def infer(engine: Engine, feed: Mapping[str, np.ndarray]) -> np.ndarray:
    """Logits, float32, [batch, classes] or [batch, sequence, 2], of `{name: int64 [batch, sequence]}`."""
    return engine.module.infer(engine.handle, feed)


def evidence(engine: Engine) -> dict[str, Any]:
    """What the runtime says it runs; see each kind's `evidence`."""
    return engine.module.evidence(engine.handle)
