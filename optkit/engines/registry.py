"""The kinds of engine by name, and engines of any kind: loaded, run, and asked what they run.

Nothing of a kind is imported before it is asked for.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from optkit.core.cpu import available_threads, cpu_features
from optkit.core.errors import InputError, MachineError
from optkit.core.plugins import Registry
from optkit.engines.base import Runtime
from optkit.engines.record import read_record

RUNTIMES: Registry[Runtime] = Registry(
    "engine kind",
    "optkit.engines",
    {
        "openvino": "optkit.engines.openvino:RUNTIME",
        "onnxruntime": "optkit.engines.onnxruntime:RUNTIME",
        "tensorrt": "optkit.engines.tensorrt.engine:RUNTIME",
    },
)


class Engine(NamedTuple):
    """A loaded engine: the runtime that knows how to run it, and that runtime's handle."""

    runtime: Runtime
    handle: Any


def kinds() -> tuple[str, ...]:
    """The names of all kinds, installed or not."""
    return RUNTIMES.names()


def runtime(kind: str) -> Runtime:
    """What a kind of engine is, whether it is installed here or not.

    Raises:
        InputError: no such kind.
        MachineError: the package that brings it cannot be imported, or brings something else.
    """
    try:
        found = RUNTIMES.get(kind)
    except InputError as error:
        raise InputError(f"Engine kind {kind!r} is unknown; expected one of {', '.join(kinds())}.") from error
    if not isinstance(found, Runtime) or found.kind != kind:
        raise MachineError(
            f"engine kind {kind!r}: found {found!r}, expected an instance of optkit.engines.base.Runtime whose `kind` is "
            f"{kind!r}. Mend the package that brings it"
        )
    return found


def installed() -> tuple[str, ...]:
    """The kinds whose engines run here: the runtime is installed, and the GPU that it may need is there.

    Raises:
        MachineError: there is none.
    """
    found = tuple(kind for kind in kinds() if runtime(kind).version() and runtime(kind).runs_here())
    if not found:
        raise MachineError(f"No engine's runtime is installed. Run: pip install {runtime(kinds()[0]).package}")
    return found


def require_running(kind: str) -> None:
    """Raise `MachineError` where engines of a kind cannot be run on this machine, and so not be timed or served."""
    found = runtime(kind)
    if not found.runs_here():
        raise MachineError(
            f"The {kind} engine needs {found.needs} to run; `optkit doctor` says what is missing"
            + (f". `optkit build RECIPE --task TASK --engine {kind}` builds without running" * found.builds_without_running)
        )


def machine(kinds: Sequence[str] = ()) -> dict[str, Any]:
    """What engines depend on beside the graph: the CPU, the cores this process may use, the runtimes' versions, the GPU.

    Args:
        kinds: engine kinds to build; empty for all that run here.
    """
    runtimes = [runtime(kind) for kind in kinds or installed()]
    versions = {one.kind: version for one in runtimes if (version := one.version())}
    found: dict[str, Any] = {
        "cpu_features": list(cpu_features()),
        "threads": available_threads(),
        "runtimes": versions,
    }
    for one in runtimes:
        found |= one.machine() if one.kind in versions else {}
    return found


def options(kinds: Sequence[str], given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What builds of these kinds are told, defaults included, for the keys of steps.

    Args:
        kinds: that are built.
        given: value by kind and key; kinds that are not built do not count.
    """
    return {kind: runtime(kind).build_options(given.get(kind, {})).as_dict() for kind in kinds}


def modules(kinds: Sequence[str]) -> tuple[str, ...]:
    """Where the code of these kinds lies, for the keys of steps: it is found by name, which no import shows."""
    return tuple(type(runtime(kind)).__module__ for kind in kinds)


def load(folder: Path, threads: int | None = None) -> Engine:
    """Load the engine in a folder, whatever its kind; `threads` None takes every core this process may use.

    Raises:
        InputError: the folder holds no engine, or one of an unknown kind.
        MachineError: the runtime is not installed, or the machine lacks what the engine was built for.
    """
    found = runtime(read_record(folder)["kind"])
    return Engine(found, found.load(folder, threads))


def infer(engine: Engine, feed: Mapping[str, np.ndarray]) -> np.ndarray:
    """Logits, float32, [batch, classes] or [batch, sequence, 2], of `{name: int64 [batch, sequence]}`."""
    return engine.runtime.infer(engine.handle, feed)


def evidence(engine: Engine) -> dict[str, Any]:
    """What the runtime says it runs; see each kind's `evidence`."""
    return engine.runtime.evidence(engine.handle)
