"""Builder of serialised plans from ONNX graphs, strongly typed: the graph alone decides what runs in which precision."""

import dataclasses
import logging
import os
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from optkit.core import temporary
from optkit.core.cache_folder import cache_folder
from optkit.core.errors import InputError, MachineError
from optkit.core.gpu import Gpu, gpus
from optkit.engines.tensorrt import library
from optkit.engines.tensorrt.logger import BuildLog, progress
from optkit.engines.tensorrt.profiles import HARDWARE, Settings

log = logging.getLogger(__name__)
_CACHE_REFUSED = "Failed to deserialize timing cache"


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or output of a plan."""

    name: str
    dtype: str
    """Type by NumPy's name: "int64", "float32"."""
    shape: tuple[int, ...]
    """Shape; -1 for dimensions that the profiles decide."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What was built, and what is known of it."""

    data: Any
    """The serialised plan, as TensorRT's own memory."""
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    shapes: tuple[dict[str, list[list[int]]], ...]
    """Shapes of each profile: {input: [smallest, best, largest shape]}."""
    build_log: BuildLog
    seconds: float
    """TensorRT's own part: parsing and building."""


def build(graph: Path, settings: Settings, longest: int, sparse: bool) -> Plan:
    """Build a plan.

    Args:
        graph: `model.onnx`, in the precision that the plan shall have.
        settings: profiles and options.
        longest: tokens that the graph has positions for.
        sparse: let TensorRT use 2:4 kernels.

    Raises:
        InputError: TensorRT does not take the graph (every parser error, with node, operator and reason), or a profile
            does not fit it.
        MachineError: TensorRT cannot build here; the message has its own errors.
    """
    trt = library.load()
    profiles = [profile.for_graph(longest) for profile in settings.profiles]
    for gpu in gpus()[:1] if not library.is_offline() else ():
        settings.check_memory(gpu)
    build_log = BuildLog(trt)
    started = time.perf_counter()
    builder = _builder(trt, build_log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, build_log.logger)
    if not parser.parse_from_file(str(graph)):
        raise InputError(_parser_errors(trt, parser, graph))
    config = _config(trt, builder, settings, sparse)
    shapes = tuple(_add_profile(builder, network, config, profile.shapes()) for profile in profiles)
    # the cache has to live as long as the build
    path, cache = _attach_cache(config, settings, build_log)
    with progress(trt, config):
        data = builder.build_serialized_network(network, config)
    if data is None:
        raise MachineError(_build_error(graph, build_log, settings))
    _keep_cache(cache, path)
    seconds = time.perf_counter() - started
    inputs = _tensors(trt, [network.get_input(number) for number in range(network.num_inputs)])
    outputs = _tensors(trt, [network.get_output(number) for number in range(network.num_outputs)])
    return Plan(data, inputs, outputs, shapes, build_log, seconds)


def _builder(trt: ModuleType, build_log: BuildLog) -> Any:
    """TensorRT's builder, which the `tensorrt` package cannot create without a GPU."""
    try:
        return trt.Builder(build_log.logger)
    except TypeError as error:  # pybind11's "factory function returned nullptr"
        found: tuple[Gpu, ...] = gpus()
        reason = "; ".join(build_log.errors()) or str(error)
        fix = (
            "Run `optkit doctor`: the driver may be too old for this TensorRT"
            if found
            else f"It needs an NVIDIA GPU, and this machine has none. To build without one: {library.INSTALL_BUILDER}, in "
            "an environment without the tensorrt package"
        )
        raise MachineError(f"TensorRT {trt.__version__} cannot start its builder: {reason}. {fix}") from error


def _parser_errors(trt: ModuleType, parser: Any, graph: Path) -> str:
    """Everything the parser has to say, a line for each error."""
    lines = []
    for number in range(parser.num_errors):
        problem = parser.get_error(number)
        node = f"node {problem.node_name()!r} ({problem.node_operator()})" if problem.node_operator() else "the graph"
        lines.append(f"  {node}: {problem.desc().strip()}")
    return (
        f"TensorRT {trt.__version__} does not take {graph}, {len(lines)} errors:\n" + "\n".join(lines) + "\nExport the "
        "model again with optkit, or take what TensorRT does not know out of the model."
    )


def _config(trt: ModuleType, builder: Any, settings: Settings, sparse: bool) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    config.builder_optimization_level = settings.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    flags = {
        trt.BuilderFlag.SPARSE_WEIGHTS: sparse,
        trt.BuilderFlag.TF32: settings.tf32,
        trt.BuilderFlag.REFIT: settings.refit,
        trt.BuilderFlag.VERSION_COMPATIBLE: settings.version_compatible,
    }
    for flag, wanted in flags.items():
        (config.set_flag if wanted else config.clear_flag)(flag)
    level = trt.HardwareCompatibilityLevel
    levels = dict(zip(HARDWARE, (level.NONE, level.AMPERE_PLUS, level.SAME_COMPUTE_CAPABILITY), strict=True))
    if settings.hardware != "none":  # TensorRT for RTX warns of every setting
        config.hardware_compatibility_level = levels[settings.hardware]
    return config


def _add_profile(builder: Any, network: Any, config: Any, shapes: tuple[tuple[int, int], ...]) -> dict[str, list[list[int]]]:
    """Give every input [batch, sequence] the profile's shapes."""
    trt_profile = builder.create_optimization_profile()
    names = [network.get_input(number).name for number in range(network.num_inputs)]
    for name in names:
        trt_profile.set_shape(name, *shapes)
    if config.add_optimization_profile(trt_profile) < 0:
        raise InputError(f"TensorRT refuses the optimisation profile {shapes} [batch, sequence] for the inputs {names}")
    return {name: [list(shape) for shape in shapes] for name in names}


def _tensors(trt: ModuleType, tensors: list[Any]) -> tuple[Tensor, ...]:
    return tuple(Tensor(tensor.name, trt.nptype(tensor.dtype).__name__, tuple(tensor.shape)) for tensor in tensors)


def _build_error(graph: Path, build_log: BuildLog, settings: Settings) -> str:
    """TensorRT's reasons; without a GPU it also complains that there is none, which stops no build by itself."""
    offline = library.is_offline()
    lines = [line for line in build_log.errors() if not (offline and "cudaError 35" in line)]
    fix = "Change the setting that it names, or see `optkit doctor` for what this machine has"
    if offline and (settings.refit or settings.version_compatible):
        fix = f"Refittable and version-compatible plans need a GPU and the tensorrt package: {library.INSTALL}"
    return f"TensorRT could not build {graph}:\n" + "".join(f"  {line}\n" for line in lines) + fix


def cache_file(settings: Settings) -> Path:
    """Return the file of measured kernel times, which hold for one TensorRT version on one kind of card."""
    if settings.timing_cache is not None:
        return settings.timing_cache
    card = next((gpu.name for gpu in gpus()), "no gpu").lower().replace(" ", "-")
    return cache_folder() / f"tensorrt-{library.installed_version()}-{card}.timing"


def _attach_cache(config: Any, settings: Settings, build_log: BuildLog) -> tuple[Path, Any]:
    """Give a build what earlier ones measured; returns the cache and its file. Without a GPU nothing is measured, and no
    cache but an empty one is read."""
    path = cache_file(settings)
    content = path.read_bytes() if path.is_file() else b""
    before = len(build_log.lines)
    cache = _set_cache(config, content)
    refused = cache is None or any(_CACHE_REFUSED in text for _, text in build_log.lines[before:])
    if refused and not library.is_offline():
        log.warning("%s is not a timing cache of this TensorRT and card: it is made anew", path)
    return path, cache if cache is not None else _set_cache(config, b"")


def _set_cache(config: Any, content: bytes) -> Any:
    """Make a timing cache and set it; None where TensorRT refuses it."""
    cache = config.create_timing_cache(content)
    return cache if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False) else None


def _keep_cache(cache: Any, path: Path) -> None:
    """Write what was measured; a reader sees the old file or the new one. A cache that cannot be kept costs time only."""
    content = None if cache is None else cache.serialize()
    if content is None:
        log.warning("%s: TensorRT keeps no timing cache; the next build measures again", path)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.file(path) as unfinished:
            unfinished.write_bytes(memoryview(content))
            os.replace(unfinished, path)
    except OSError as error:
        log.warning("%s: the timing cache cannot be kept (%s); the next build measures again", path, error.strerror)
