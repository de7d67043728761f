"""Engine kinds by name, and engines of any kind: built, loaded, run, and inspected.

A kind's module is imported when the kind is looked up.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from optkit.core.cpu import available_threads, cpu_features
from optkit.core.errors import InputError, MachineError
from optkit.core.plugins import Registry
from optkit.core.step_cache import writing
from optkit.engines.base import Runtime
from optkit.engines.checked_feed import check_length
from optkit.engines.record import read_record

RUNTIMES: Registry[Runtime] = Registry(
    "engine kind",
    "optkit.engines",
    {
        "openvino": "optkit.engines.openvino:RUNTIME",
        "onnxruntime": "optkit.engines.onnxruntime:RUNTIME",
        "tensorrt": "optkit.engines.tensorrt.engine:RUNTIME",
        "torch": "optkit.engines.torch.aot_engine:RUNTIME",
    },
    lambda thing: isinstance(thing, Runtime),
)


class Engine(NamedTuple):
    """A loaded engine: its runtime, the runtime's handle, and its folder.

        engine = optkit.load_engine("out/openvino-int8")
        logits = engine.infer({"input_ids": ids, "attention_mask": mask})

    `build_engine` returns one too.
    """

    runtime: Runtime
    handle: Any
    folder: Path
    longest: int | None = None
    """Tokens that it takes at most; None where its record does not say."""

    def infer(self, feed: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Run one batch.

        Args:
            feed: inputs by name, int64 [batch, sequence]; names that the engine does not have are ignored.

        Returns:
            Logits, float32, such as [batch, classes].

        Raises:
            InputError: an input is missing, or has too many tokens. What ids are is not looked at: the server does, which
                refuses strange ones.
        """
        try:
            check_length(feed["input_ids"].shape[-1], self.longest, "feed: ")
            return self.runtime.infer(self.handle, feed)
        except KeyError as error:
            if error.args[0] in feed:
                raise
            raise InputError(
                f"feed: found {', '.join(feed) or 'nothing'}, lacks {error.args[0]}; expected int64 arrays [batch, sequence]"
            ) from error

    def evidence(self) -> dict[str, Any]:
        """Return what the runtime reports about its kernels, such as `int8_gemm_share`: share of products in INT8."""
        return self.runtime.evidence(self.handle)


def kinds() -> tuple[str, ...]:
    """Return the names of all kinds, installed or not."""
    return RUNTIMES.names()


def runtime(kind: str) -> Runtime:
    """Return the runtime of a kind, installed or not.

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
    """Return the kinds whose engines are built here unless others are named: installed, with the hardware that they need.

    Raises:
        MachineError: there is none.
    """
    found = tuple(kind for kind, one in RUNTIMES.working() if one.version() and one.runs_here() and not one.on_request)
    if not found:
        raise MachineError(f"No engine's runtime is installed. Run: pip install {runtime(kinds()[0]).package}")
    return found


def require_running(kind: str) -> None:
    """Raise `MachineError` if engines of a kind cannot run on this machine, and so cannot be timed or served."""
    found = runtime(kind)
    if not found.runs_here():
        raise MachineError(
            f"The {kind} engine needs {found.needs} to run; `optkit doctor` says what is missing"
            + (f". `optkit build RECIPE --task TASK --engine {kind}` builds without running" * found.builds_without_running)
        )


def machine(kinds: Sequence[str] = ()) -> dict[str, Any]:
    """Return what engines depend on besides the graph: CPU features, available cores, runtime versions, GPU.

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
    """Return the build options of engine kinds, defaults included, for the keys of steps.

    Args:
        kinds: kinds to build.
        given: option values by kind and key; other kinds are ignored.
    """
    return {kind: runtime(kind).build_options(given.get(kind, {})).as_dict() for kind in kinds}


def modules(kinds: Sequence[str]) -> tuple[str, ...]:
    """Return the modules of engine kinds, for the keys of steps: kinds are looked up by name, not imported."""
    return tuple(type(runtime(kind)).__module__ for kind in kinds)


def build_engine(
    graph: Path | str,
    kind: str,
    precision: str,
    folder: Path | str | None = None,
    *,
    variant: str | None = None,
    options: Mapping[str, Any] | None = None,
    threads: int | None = None,
) -> Engine:
    """Build an engine from a graph, and load it.

        engine = optkit.build_engine(graph, "openvino", "int8")
        logits = engine.infer({"input_ids": ids, "attention_mask": mask})

    The engine is neither timed nor compared with the graph: `evaluate` scores it, and a recipe builds every candidate and
    keeps the fastest whose logits agree with the graph's.

    Args:
        graph: path of `model.onnx`, as `export_onnx` returns it, or of its folder.
        kind: engine kind: `openvino`, `onnxruntime`, `tensorrt`, or one of another package.
        precision: `fp32`, `bf16`, `fp16`, or `int8` for a quantised graph.
        folder: folder of the engine; an engine already there is replaced. By default `<kind>-<precision>/` beside the graph.
        variant: build variant of the kind for the precision; None for the default.
        options: build options of the kind by name.
        threads: number of CPU threads; None for every core that this process may use.

    Returns:
        The loaded engine.

    Raises:
        InputError: no such graph, kind, precision, variant or option, or the folder contains other files.
        MachineError: the runtime is not installed, or this machine cannot run what it builds.
    """
    graph, made_by = Path(graph), runtime(kind)
    graph = graph / "model.onnx" if graph.is_dir() else graph
    made_by.require()
    if threads is not None and threads < 1:
        raise InputError(f"threads: found {threads}, expected 1 or more, or None for every core")
    if not graph.is_file():
        raise InputError(f"{graph}: no such graph; export one: optkit.export_onnx(model, folder)")
    if precision not in (possible := made_by.precisions(_is_quantised(graph))):
        raise InputError(
            f"{kind} cannot build {precision!r} of {graph} here, only {', '.join(possible) or 'nothing'}: INT8 needs a "
            "graph with quantisers (optkit.quantize_ before the export), the others one without"
        )
    require_running(kind)
    target = Path(folder) if folder is not None else graph.parent / f"{kind}-{precision}"
    _require_replaceable(target)
    with writing(target) as unfinished:
        made_by.build(graph, precision, unfinished, variant, made_by.build_options(options or {}))
    return load(target, threads)


def _require_replaceable(folder: Path) -> None:
    """Raise `InputError` if a folder contains something other than an engine, which would be lost."""
    if folder.is_dir() and any(folder.iterdir()):
        read_record(folder)


def _is_quantised(graph: Path) -> bool:
    from optkit.graph import onnx_file  # reads graphs; not needed to run an engine

    return any(node.op_type == "DequantizeLinear" for node in onnx_file.structure(graph).graph.node)


def load(folder: Path, threads: int | None = None) -> Engine:
    """Load the engine in a folder, of any kind.

        engine = optkit.load_engine("out/openvino-int8")

    Args:
        folder: folder of the engine, with an `engine.json`.
        threads: number of CPU threads; None for every core that this process may use.

    Returns:
        The loaded engine.

    Raises:
        InputError: the folder holds no engine, or one of an unknown kind.
        MachineError: the runtime is not installed, or the machine lacks what the engine was built for.
    """
    record = read_record(folder)
    found = runtime(record["kind"])
    return Engine(found, found.load(folder, threads), Path(folder), found.longest_input(record))
