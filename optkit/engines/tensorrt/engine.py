"""TensorRT on an NVIDIA GPU: float32, FP16, bf16, and INT8 from a quantised graph, with or without 2:4 sparsity.

Each precision is a graph of its own (`optkit.graph.tensorrt.variants`) built as a strongly typed network. On a machine
without a GPU a plan can be built, for what it tells of the graph, and not run; see `optkit.engines.tensorrt.library`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from optkit.core import temporary
from optkit.core.errors import InputError
from optkit.core.gpu import gpus
from optkit.core.json_door import read_json
from optkit.engines.base import Measured, Record, Runtime, Tensors, promises_of_sparsity
from optkit.engines.record import empty_folder, read_record, write_record
from optkit.engines.tensorrt import builder, deployment, library
from optkit.engines.tensorrt import inspector as layers_of
from optkit.engines.tensorrt.compatibility import EVIDENCE, LOG, PLAN, check_driver
from optkit.engines.tensorrt.profiles import Options, Settings
from optkit.engines.tensorrt.runner import Runner


class TensorRT(Runtime):
    """TensorRT's plans."""

    kind = package = "tensorrt"
    on_gpu = True
    needs = "an NVIDIA GPU with its driver and the tensorrt package"
    builds_without_running = True
    needs_ranges = True
    options = Options
    artefacts = (PLAN,)

    def version(self) -> str | None:
        """TensorRT comes in one of several packages."""
        return library.installed_version()

    def require(self) -> None:
        """Raise `MachineError` unless TensorRT is here, or a builder that needs no GPU."""
        library.load()

    def runs_here(self) -> bool:
        """Whether plans can be run on this machine, and not only built."""
        return super().runs_here() and library.installed_version() is not None and not library.is_offline()

    def precisions(self, graph_is_quantised: bool) -> tuple[str, ...]:
        """What can be built from a graph; bf16 needs a card from Ampere on."""
        library.load()
        if graph_is_quantised:
            return ("int8",)
        return ("fp32", "fp16", "bf16") if all(gpu.has_bf16 for gpu in gpus()[:1]) else ("fp32", "fp16")

    def variants(self, precision: str) -> tuple[str, ...]:
        """The ways to place quantisers in an INT8 graph, named after what stays float; otherwise one."""
        from optkit.graph.tensorrt.variants import INT8  # writes graphs; not needed to run an engine

        return tuple(INT8) if precision == "int8" else (precision,)

    def build_options(self, given: Mapping[str, Any]) -> Options:
        """The options, among them a variant only where plans are not timed."""
        found = Options.parse(self.kind, given)
        if found.variant and self.runs_here():
            raise InputError(f"--variant {found.variant}: on this machine every variant is built and timed; leave it out")
        return found

    def preferred(self, graph: Path, precision: str, options: Options) -> str:
        """The variant that was asked for; else GEMMs that write INT8 where weights have one scale each, and quantised
        outputs for 2:4 weights, whose kernels demand them."""
        from optkit.graph.tensorrt.variants import is_per_tensor, is_sparse

        asked = options.variant
        if asked and precision != "int8":
            raise InputError(f"--variant {asked}: only INT8 plans have variants, and this recipe does not quantise")
        if asked or precision != "int8":
            return asked or self.variants(precision)[0]
        per_tensor, per_channel = ("int8-out-all", "fp16-outputs") if is_sparse(graph) else ("int8-out", "fp16")
        return per_tensor if is_per_tensor(graph) else per_channel

    def build(
        self, graph: Path, precision: str, folder: Path, variant: str | None = None, options: Options | None = None
    ) -> None:
        """Build a plan and write it with its evidence, TensorRT's log and `engine.json`.

        Args:
            graph: `model.onnx`; a quantised one for "int8", with `ranges.json` beside it for the variants that need it.
            precision: "fp32", "fp16", "bf16" or "int8".
            folder: an existing, empty folder.
            variant: one of `variants(precision)`.
            options: profiles and settings; None for the defaults.

        Raises:
            InputError: another precision or variant, a folder that is not empty, a graph that TensorRT does not take, or a
                profile that does not fit it.
            MachineError: no TensorRT, a driver too old, too little memory, or a build that failed.
        """
        from optkit.graph.tensorrt.variants import FLOAT, INT8, write

        choices = INT8 if precision == "int8" else {precision: FLOAT[precision]} if precision in FLOAT else {}
        if variant not in (None, *choices) or not choices:
            raise InputError(
                f"TensorRT cannot build precision {precision!r}, variant {variant or 'default'!r}; expected int8 with "
                f"{', '.join(INT8)}, or one of {', '.join(FLOAT)}."
            )
        chosen, settings, folder = variant or next(iter(choices)), (options or Options()).settings(), empty_folder(folder)
        _check_driver()
        with temporary.folder(".build", folder) as scratch:
            written = write(graph, choices[chosen], scratch / "model.onnx")
            sparse = written.sparse if settings.sparse is None else settings.sparse
            plan = builder.build(written.path, settings, written.longest, sparse)
        (folder / PLAN).parent.mkdir()
        (folder / PLAN).write_bytes(memoryview(plan.data))
        (folder / LOG).write_text(plan.build_log.text(), encoding="utf-8")
        record = _record(plan, settings, sparse)
        lines = [text for _, text in plan.build_log.lines]
        source, found = _layers(folder, record, lines)
        summary = layers_of.summary(found, written.products, lines)
        masks = written.audit.pop("sparse_weights")
        content = {"source": source, **summary, "sparse_weights": masks, "graph": written.audit}
        types = layers_of.gemms(found, written.products)
        content["gemms"] = {product.name: {"weight": kinds[0], "output": kinds[1]} for product, kinds in types.items()}
        content["layers"] = [asdict(layer) for layer in found]
        (folder / EVIDENCE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        write_record(folder, kind=self.kind, precision=precision, variant=chosen, **record)

    def load(self, folder: Path, threads: int | None = None) -> tuple[Runner, Path]:
        """Load a plan onto the GPU; `threads` means nothing there.

        Raises:
            MachineError: this machine cannot run it; the message says why and what to do.
        """
        return Runner(Path(folder), read_record(Path(folder))), Path(folder)

    def infer(self, handle: tuple[Runner, Path], feed: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Logits, float32, of int64 tensors [batch, sequence]; tensors that the plan does not take are ignored."""
        return handle[0].infer(feed)

    def evidence(self, handle: tuple[Runner, Path]) -> dict[str, Any]:
        """What was found when the plan was built; see `optkit.engines.tensorrt.inspector.summary`."""
        return self.stored_evidence(handle[1])

    def stored_evidence(self, folder: Path) -> dict[str, Any]:
        """The evidence in an engine's folder, without its lists of GEMMs and layers."""
        content = read_json(folder / EVIDENCE, dict[str, Any], "build the engine again")
        return {name: value for name, value in content.items() if name not in ("gemms", "layers")}

    def promises(self, row: Measured) -> Iterator[tuple[str, str]]:
        """What 2:4 is for on a GPU."""
        return promises_of_sparsity(row)

    def longest_input(self, record: Record) -> int:
        """Return the longest input that one of the plan's profiles takes, in tokens."""
        return deployment.largest(record["profiles"])[1]

    def tensors(self, folder: Path) -> Tensors:
        """Inputs and outputs of the plan."""
        return deployment.tensors(read_record(folder))

    def largest_batch(self, record: Record) -> int:
        """Return the largest batch that one of the plan's profiles takes."""
        return deployment.largest(record["profiles"])[0]

    def native_config(self, record: Record) -> dict[str, Any]:
        """Return the settings of Triton's TensorRT backend."""
        return deployment.native_config(record)

    def containers(self, record: Record) -> Mapping[str, str]:
        """TensorRT's version by container."""
        return deployment.containers(record)

    def install(self, version: str) -> str:
        """Return the command that installs the TensorRT of a container."""
        return deployment.package(version)

    def runs_on_newer(self, record: Record) -> bool:
        """Return whether the plan was built to run on newer versions too."""
        return bool(record["settings"]["version_compatible"])

    def server_options(self, record: Record) -> tuple[str, ...]:
        """Return the option without which a server refuses plans of an older TensorRT; none for other plans."""
        return ("--backend-config=tensorrt,version-compatible=true",) if self.runs_on_newer(record) else ()

    def node_labels(self, record: Record) -> dict[str, str]:
        """Return the architecture of the card that the plan was built on; none for a plan of several."""
        return deployment.node_labels(record)


def _check_driver() -> None:
    for gpu in gpus()[:1] if not library.is_offline() else ():
        check_driver(gpu, library.cuda())


def _record(plan: builder.Plan, settings: Settings, sparse: bool) -> dict[str, Any]:
    """What `engine.json` says beside what every engine's does."""
    offline = library.is_offline()
    gpu = None if offline else gpus()[0]
    return {
        "version": library.load().__version__,
        "inputs": [tensor.name for tensor in plan.inputs],
        "offline": offline,
        "gpu": gpu.name if gpu else None,
        "capability": list(gpu.capability) if gpu else None,
        "cuda": library.cuda(),
        "tensors": {"inputs": [asdict(t) for t in plan.inputs], "outputs": [asdict(t) for t in plan.outputs]},
        "profiles": list(plan.shapes),
        "settings": settings.as_dict() | {"sparse": sparse},
        "build_seconds": round(plan.seconds, 2),
    }


def _layers(folder: Path, record: dict[str, Any], lines: list[str]) -> tuple[str, list[layers_of.Layer]]:
    """The plan's layers, by the engine inspector where it can be loaded, else by the builder's log."""
    if record["offline"]:
        return "build log, without a GPU: kernels are chosen on the card", layers_of.from_log(lines)
    # as it will be in engine.json
    runner = Runner(folder, {**record, "runtime_version": record["version"]})
    return "engine inspector", layers_of.from_inspector(runner.inspect())


RUNTIME = TensorRT()
