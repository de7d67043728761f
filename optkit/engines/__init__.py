"""Engines: one runtime's built artefact each, in a folder of its own with an `engine.json` that says what it is.

An engine kind is a module with these functions, and nothing else is known of it elsewhere:

* `precisions(graph_is_quantised)`: what this machine can build from such a graph, of "fp32", "bf16", "fp16" and "int8";
* `variants(precision)`: the ways to build it that are worth comparing, the first being the default;
* `build(graph, precision, folder, variant=None)`: write the artefact and `engine.json` into an existing, empty folder;
* `load(folder, threads=None)`: a handle, ready to run;
* `infer(handle, feed)`: logits, float32, of `{name: int64 [batch, sequence]}`;
* `evidence(handle)`: what the runtime says it runs, above all `int8_gemm_share`;
* `tensors(folder)`: `inputs` and `outputs` as the artefact has them, each with `name`, `dtype` (NumPy's word) and `shape`,
  -1 where it varies.

The modules import their runtime, NumPy and the standard library only: they also run inside the server's processes.
"""

import importlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from optkit.core.cpu import available_threads, cpu_features
from optkit.core.errors import InputError, MachineError
from optkit.core.gpu import gpus
from optkit.engines.record import read_record
from optkit.engines.tensorrt import library

CPU_KINDS = ("openvino", "onnxruntime")
KINDS = (*CPU_KINDS, "tensorrt")


class Engine(NamedTuple):
    """A loaded engine: the module that knows how to run it, and that module's handle."""

    kind: str
    module: ModuleType
    handle: Any


def installed() -> tuple[str, ...]:
    """The engine kinds whose engines run here: the runtime is installed, and for TensorRT there is a GPU.

    Raises:
        MachineError: there is none.
    """
    found = tuple(kind for kind in KINDS if _version(kind) and runs_here(kind))
    if not found:
        raise MachineError(f"No engine's runtime is installed. Run: pip install {KINDS[0]}")
    return found


def runs_here(kind: str) -> bool:
    """Whether engines of a kind run on this machine, where its runtime is installed; a CPU's always do."""
    return kind in CPU_KINDS or module(kind).runs_here()


def require_running(kind: str) -> None:
    """Raise `MachineError` where engines of a kind cannot be run on this machine, and so not be timed or served."""
    if not runs_here(kind):
        raise MachineError(
            f"The {kind} engine needs an NVIDIA GPU with its driver and the tensorrt package to run; `optkit doctor` says "
            f"what is missing. `optkit build RECIPE --task TASK --engine {kind}` builds without running"
        )


def machine(kinds: Sequence[str] = ()) -> dict[str, Any]:
    """What engines depend on beside the graph: the CPU, the cores this process may use, the runtimes' versions, the GPU.

    Args:
        kinds: engine kinds to build; empty for all that run here.
    """
    found: dict[str, Any] = {
        "cpu_features": list(cpu_features()),
        "threads": available_threads(),
        "runtimes": {kind: version for kind in kinds or installed() if (version := _version(kind))},
    }
    if "tensorrt" in found["runtimes"]:
        found["gpus"] = [gpu.name for gpu in gpus()[:1]]
    return found


def _version(kind: str) -> str | None:
    if kind == "tensorrt":  # one of several packages
        return library.installed_version()
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
        return importlib.import_module(f"optkit.engines.{'tensorrt.engine' if kind == 'tensorrt' else kind}")
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
    """Logits, float32, [batch, …], of `{name: int64 [batch, sequence]}`."""
    return engine.module.infer(engine.handle, feed)


def evidence(engine: Engine) -> dict[str, Any]:
    """What the runtime says it runs; see each kind's `evidence`."""
    return engine.module.evidence(engine.handle)
