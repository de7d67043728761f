"""OpenVINO on a CPU: float32, bf16 where the CPU multiplies it, and INT8 from a quantised graph.

The artefact is OpenVINO's own `model.xml` and `model.bin`, compiled for the CPU when it is loaded; `model.bin` is packed
where its matrices share their blocks. What stays float in an INT8 engine, attention and LayerNorm above all, runs in bf16
or float32: its variant, stored in `engine.json`.
"""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optkit.core.cpu import available_threads, int8_saturates
from optkit.core.errors import InputError, MachineError
from optkit.engines import packed_weights
from optkit.engines.base import TOKENS, Record, Runtime, Tensors
from optkit.engines.openvino_fusion import fuse
from optkit.engines.openvino_model import FILE, WEIGHTS, constants, read, stored_weights
from optkit.engines.record import empty_folder, read_record, require_features, write_record
from optkit.engines.signal_stack import kept_signal_stack
from optkit.engines.sparse_share import sparse_share

if TYPE_CHECKING:
    import openvino

CONTAINERS = {"26.05": "2026.1.0", "26.06": "2026.2.0", "26.07": "2026.2.0", "26.08": "2026.3.0"}
"""OpenVINO's version by the tag of the container `nvcr.io/nvidia/tritonserver:<tag>-py3`."""

_BF16 = {"avx512_bf16", "amx_bf16"}
"""Features of a CPU that multiplies bf16."""

_PARTS_PER_THREAD = 2
"""Number of parts of a thread's share of a batch, so that a thread held up elsewhere leaves work to the others."""

_LEAST_ROWS = 4
"""Rows of a part: of fewer, parts take longer than all threads on the batch together."""

_KERNELS = 1000
"""Kernels that a compiled model keeps for shapes seen before, about four a shape; those unused for longest go first.

By default there are 5000, compiled anew for each shape of a request: 0.6 MB a shape, 0.8 GB in all.
"""


@dataclasses.dataclass(frozen=True)
class Handle:
    """A model compiled for all threads at once, and for one thread a batch, with what it takes."""

    compiled: "openvino.CompiledModel"
    request: "openvino.InferRequest"
    model: "openvino.Model"
    folder: Path
    side_by_side: "tuple[openvino.InferRequest, ...]"
    """Two requests per thread, each run by one thread; empty where there is only one."""
    inputs: tuple[str, ...]


class OpenVINO(Runtime):
    """OpenVINO's engines for a CPU."""

    kind = package = "openvino"
    artefacts = (FILE, WEIGHTS)

    def precisions(self, graph_is_quantised: bool) -> tuple[str, ...]:
        """What OpenVINO can build from a graph on this CPU: 16 bits by its own account, INT8 where its sums are exact."""
        if graph_is_quantised:
            return () if int8_saturates() else ("int8",)
        return ("fp32", "bf16") if _has_bf16() else ("fp32",)

    def variants(self, precision: str) -> tuple[str, ...]:
        """What stays float runs in one of these."""
        if precision == "int8":
            return ("bf16", "f32") if _has_bf16() else ("f32",)
        return ("bf16",) if precision == "bf16" else ("f32",)

    def build(self, graph: Path, precision: str, folder: Path, variant: str | None = None, options: Any = None) -> None:
        """Convert a graph to OpenVINO's form and write it with `engine.json`.

        Args:
            graph: `model.onnx`; a quantised one for "int8".
            precision: "fp32", "bf16" or "int8".
            folder: an existing, empty folder.
            variant: what stays float in an INT8 engine: "bf16" (default where the CPU has it) or "f32".
            options: there are none.

        Raises:
            InputError: another precision or variant, INT8 where it would saturate, or a folder that is not empty.
        """
        self.require()
        import openvino

        from optkit.graph import onnx_file, products  # read graphs; not needed to run an engine

        possible = {name: self.variants(name) for name in (*self.precisions(False), *self.precisions(True))}
        if precision not in possible or variant not in (None, *possible[precision]):
            raise InputError(
                f"OpenVINO cannot build precision {precision!r}, variant {variant or 'default'!r}, on this CPU; expected a "
                f"precision with one of its variants, of {possible}."
            )
        folder = empty_folder(folder)
        model = openvino.Core().read_model(str(graph))
        fuse(model)
        openvino.save_model(model, str(folder / FILE), compress_to_fp16=False)
        packed_weights.pack(folder / WEIGHTS, constants(folder / FILE))
        write_record(
            folder,
            kind=self.kind,
            precision=precision,
            variant=variant or possible[precision][0],
            version=openvino.__version__,
            inputs=[tensor.get_any_name() for tensor in model.inputs],
            longest=products.longest_sequence(onnx_file.structure(graph).graph),
        )

    def load(self, folder: Path, threads: int | None = None) -> Handle:
        """Compile an engine for this CPU; `threads` None takes every core this process may use.

        Raises:
            MachineError: this CPU lacks bf16, or exact INT8 sums, that the engine was built for.
        """
        self.require()
        import openvino

        folder = Path(folder)
        record = read_record(folder)
        if record["variant"] == "bf16":
            # without them OpenVINO would compute in float32 and not say so, at half the speed
            require_features(folder, _BF16.intersection(record["cpu_features"]))
        if record["precision"] == "int8" and int8_saturates():
            raise MachineError(
                f"The engine in {folder} multiplies INT8, which saturates in OpenVINO on a CPU without VNNI: its answers "
                "would differ from those that were validated. Build it again on this machine: ONNX Runtime's INT8 is exact "
                "here."
            )
        threads = threads or available_threads()
        settings = {
            "INFERENCE_PRECISION_HINT": record["variant"],
            "INFERENCE_NUM_THREADS": threads,
            # pinned, the threads of two engines would share a core while another idles
            "ENABLE_CPU_PINNING": False,
            "CPU_RUNTIME_CACHE_CAPACITY": _KERNELS,
        }
        core = openvino.Core()
        model = read(core, folder)
        requests: tuple[openvino.InferRequest, ...] = ()
        with kept_signal_stack():
            compiled = core.compile_model(model, "CPU", {**settings, "NUM_STREAMS": 1})
            if threads > 1:
                streams = core.compile_model(model, "CPU", {**settings, "NUM_STREAMS": threads})
                requests = tuple(streams.create_infer_request() for _ in range(_PARTS_PER_THREAD * threads))
        return Handle(compiled, compiled.create_infer_request(), model, folder, requests, tuple(record["inputs"]))

    def infer(self, handle: Handle, feed: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Logits, float32, of int64 tensors [batch, sequence]; tensors that the engine does not take are ignored.

        A batch large enough is cut into parts of whole rows, each run by one thread: unlike threads that share every
        operator, they never wait for each other. Below that, all threads work on the batch together.
        """
        tensors = {name: np.require(feed[name], requirements=["C", "W"]) for name in handle.inputs}
        rows = len(tensors["input_ids"])
        is_large = handle.side_by_side and rows >= _LEAST_ROWS * len(handle.side_by_side)
        requests = handle.side_by_side if is_large else (handle.request,)
        bounds = [rows * part // len(requests) for part in range(len(requests) + 1)]
        for request, (first, last) in zip(requests, itertools.pairwise(bounds), strict=True):
            _start(request, {name: tensor[first:last] for name, tensor in tensors.items()})
        _wait(requests)
        # copied: the requests own the results' memory, and the next call writes into it
        logits: NDArray[np.float32] = np.concatenate([request.get_output_tensor().data for request in requests])
        return logits.astype(np.float32, copy=False)

    def tensors(self, folder: Path) -> Tensors:
        """Inputs and outputs of the stored graph."""
        import openvino

        def described(port: Any) -> dict[str, Any]:
            shape = [-1 if dim.is_dynamic else dim.get_length() for dim in port.get_partial_shape()]
            return {"name": port.get_any_name(), "dtype": port.get_element_type().to_dtype().name, "shape": shape}

        model = read(openvino.Core(), folder)
        return {"inputs": [described(one) for one in model.inputs], "outputs": [described(one) for one in model.outputs]}

    def evidence(self, handle: Handle) -> dict[str, Any]:
        """What the compiled model says of its nodes (`runtimePrecision`).

        Returns:
            `int8_gemm_share`: share of the multiply-adds of products with a stored weight that are done in INT8.
            `precision_by_type`: number of nodes by type and precision, such as {"FullyConnected i8": 36, "MVN bf16": 13}.
            `sparse_weights`, `stored_weights`, `sparse_groups_kept`: see `optkit.engines.sparse_share`.
            `expanded_bytes`: of weights that are stored packed.
        """
        counts: Counter[str] = Counter()
        work: Counter[str] = Counter()
        for node in handle.compiled.get_runtime_model().get_ordered_ops():
            info = {key: node.get_rt_info()[key].astype(str) for key in ("layerType", "runtimePrecision")}
            kind, precision = info["layerType"], info["runtimePrecision"]
            if kind in ("Const", "Parameter", "Result", "Reshape", "Input", "Output"):
                continue
            counts[f"{kind} {precision}"] += 1
            if kind == "FullyConnected":
                rows = TOKENS if len(node.get_output_partial_shape(0)) > 2 else 1
                size = math.prod(node.input_value(1).get_shape())
                work["i8" if precision in ("i8", "u8") else "float"] += rows * size
        total = sum(work.values())
        return {
            "int8_gemm_share": work["i8"] / total if total else None,
            "precision_by_type": dict(sorted(counts.items())),
            **sparse_share(stored_weights(handle.model)),
            **packed_weights.evidence(handle.folder / WEIGHTS),
        }

    def largest_batch(self, record: Record) -> int:
        """Return 0, no batching by Triton: the backend would demand full batches (openvino_backend#71)."""
        return 0

    def native_config(self, record: Record) -> dict[str, Any]:
        """Return the backend's settings: all threads on one request, and float parts in the variant's type, as in optkit."""
        parameters = {"PERFORMANCE_HINT": {"string_value": "LATENCY"}}
        if record["variant"] == "bf16":
            parameters["HINT_BF16"] = {"string_value": "YES"}
        return super().native_config(record) | {"parameters": parameters}

    def native_parallelism(self, instances: int, threads: int | None) -> dict[str, str]:
        """All instances share one compiled model: a stream for each, and the threads of all together."""
        found = {} if instances == 1 else {"NUM_STREAMS": str(instances)}
        return found if threads is None else found | {"INFERENCE_NUM_THREADS": str(threads * instances)}

    def native_record(self, record: Record) -> Record:
        """The variant bf16 of an INT8 engine that keeps float32 otherwise: where the CPU has bf16, the backend computes in
        it, whatever it is told. The artefact is the same.

        Raises:
            InputError: an engine of precision fp32.
        """
        if record["variant"] != "f32" or not _BF16.intersection(record["cpu_features"]):
            return record
        if record["precision"] == "fp32":
            raise InputError(
                "Triton's OpenVINO backend computes in bf16 on a CPU that has it, and cannot be told to use float32. Serve "
                "this engine with --flavour python, take --engine onnxruntime, or the engine in bf16"
            )
        return {**record, "variant": "bf16"}

    def containers(self, record: Record) -> Mapping[str, str]:
        """OpenVINO's version by container."""
        return CONTAINERS

    def runs_on_older(self, record: Record) -> bool:
        """Return True: models of 2026.4.1 were loaded and answered right by all versions from 2026.1.0 on."""
        return True


def _start(request: "openvino.InferRequest", tensors: Mapping[str, NDArray[Any]]) -> None:
    """Start a request on tensors that it reads where they are, which takes a tenth of a millisecond less than by a mapping.

    Never by `infer`: with one thread it loses OpenVINO's errors, and the request still has its last answer.
    """
    import openvino

    for name, tensor in tensors.items():
        request.set_tensor(name, openvino.Tensor(tensor, shared_memory=True))
    request.start_async()


def _wait(requests: "Iterable[openvino.InferRequest]") -> None:
    """Wait for all requests, also where one fails: those that run on read their inputs' memory, and could not be started.

    Raises:
        RuntimeError: of the first request that failed.
    """
    failed = []
    for request in requests:
        try:
            request.wait()
        except RuntimeError as error:
            failed.append(error)
    if failed:
        raise failed[0]


def _has_bf16() -> bool:
    import openvino

    with kept_signal_stack():
        return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


RUNTIME = OpenVINO()
