"""ONNX Runtime on a CPU: float32, and INT8 from a quantised graph.

The artefact is the graph after ONNX Runtime's own optimisations, so that what is stored is what runs: products that
became INT8 appear in it as `MatMulIntegerToFloat` or `QLinearMatMul`. It is packed where its matrices share their blocks.
There is no 16-bit here: on x86 its CPU kernels multiply float32 only, and a 16-bit graph would run slower, between casts.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optkit.core.cpu import available_threads, int8_saturates
from optkit.core.errors import InputError
from optkit.engines import packed_weights
from optkit.engines.base import TOKENS, Record, Runtime, Tensors
from optkit.engines.record import empty_folder, read_record, require_features, write_record
from optkit.engines.sparse_share import sparse_share

if TYPE_CHECKING:
    import onnxruntime

FILE = "model.onnx"

CONTAINERS = {"26.05": "1.24.4", "26.06": "1.24.4", "26.07": "1.27.0", "26.08": "1.28.0"}
"""ONNX Runtime's version by the tag of the container `nvcr.io/nvidia/tritonserver:<tag>-py3`."""

_INT8_PRODUCTS = ("MatMulIntegerToFloat", "QLinearMatMul", "MatMulInteger", "DynamicQuantizeMatMul", "QGemm")
_FLOAT_PRODUCTS = ("MatMul", "FusedMatMul", "Gemm", "FusedGemm")

_UNSIGNED_ZERO = 128
"""Offset that ONNX Runtime adds to INT8 weights, and to their zero point, where it stores them unsigned."""

_NO_OPTIMISATION = 2
"""Triton's value of `optimization.graph.level` for no optimisation."""


@dataclasses.dataclass(frozen=True)
class Handle:
    """A session with its inputs."""

    session: "onnxruntime.InferenceSession"
    folder: Path
    inputs: tuple[str, ...]


class ONNXRuntime(Runtime):
    """ONNX Runtime's engines for a CPU."""

    kind = package = "onnxruntime"
    artefacts = (FILE,)

    def precisions(self, graph_is_quantised: bool) -> tuple[str, ...]:
        """What ONNX Runtime can build from a graph: no 16-bit on a CPU."""
        return ("int8",) if graph_is_quantised else ("fp32",)

    def build(self, graph: Path, precision: str, folder: Path, variant: str | None = None, options: Any = None) -> None:
        """Optimise a graph for this CPU and write it with `engine.json`.

        Args:
            graph: `model.onnx`; a quantised one for "int8".
            precision: "fp32" or "int8".
            folder: an existing, empty folder.
            variant: what stays float: "f32", the only one there is.
            options: there are none.

        Raises:
            InputError: another precision or variant, or a folder that is not empty.
        """
        if precision not in ("fp32", "int8") or variant not in (None, "f32"):
            raise InputError(
                f"ONNX Runtime cannot build precision {precision!r}, variant {variant or 'f32'!r}, on a CPU; expected fp32 "
                "or int8, variant f32. For 16-bit take the openvino engine."
            )
        self.require()
        import onnxruntime

        from optkit.graph import onnx_file, products  # read graphs; not needed to run an engine

        folder = empty_folder(folder)
        settings = _settings(available_threads())
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        settings.optimized_model_filepath = str(folder / FILE)
        if int8_saturates():
            # stores INT8 weights as unsigned ones, whose products are added in 32 bits
            settings.add_session_config_entry("session.x64quantprecision", "1")
        # warns that the optimised graph is for this kind of machine only, which engine.json records
        settings.log_severity_level = 3
        prepared = _prepared(graph, settings)
        session = onnxruntime.InferenceSession(
            prepared,
            settings,
            providers=["CPUExecutionProvider"],
            # it would make the quantisers that _prepared takes apart one again
            disabled_optimizers=["CommonSubexpressionElimination"],
        )
        packed_weights.pack(folder / FILE, _initialisers(folder / FILE))
        write_record(
            folder,
            kind=self.kind,
            precision=precision,
            variant="f32",
            version=onnxruntime.__version__,
            inputs=[tensor.name for tensor in session.get_inputs()],
            longest=products.longest_sequence(onnx_file.structure(graph).graph),
        )

    def load(self, folder: Path, threads: int | None = None) -> Handle:
        """Open an engine; `threads` None takes every core this process may use."""
        self.require()
        import onnxruntime

        folder = Path(folder)
        record = read_record(folder)
        require_features(folder, record["cpu_features"])
        settings = _settings(threads or available_threads())
        # the stored graph is optimised already; what is written is what runs
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        packed = packed_weights.is_packed(folder / FILE)
        stored = packed_weights.expanded(folder / FILE).tobytes() if packed else str(folder / FILE)
        session = onnxruntime.InferenceSession(stored, settings, providers=["CPUExecutionProvider"])
        return Handle(session, folder, tuple(record["inputs"]))

    def infer(self, handle: Handle, feed: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Logits, float32, of int64 tensors [batch, sequence]; tensors that the engine does not take are ignored."""
        logits: NDArray[np.float32] = handle.session.run(["logits"], {name: feed[name] for name in handle.inputs})[0]
        return logits

    def tensors(self, folder: Path) -> Tensors:
        """Inputs and outputs of the stored graph."""
        import onnx  # reads the file; not needed to run an engine

        def described(value: Any) -> dict[str, Any]:
            kind = value.type.tensor_type
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
            return {"name": value.name, "dtype": dtype, "shape": [dim.dim_value or -1 for dim in kind.shape.dim]}

        graph = _graph(folder, weights=False)
        return {"inputs": [described(one) for one in graph.input], "outputs": [described(one) for one in graph.output]}

    def evidence(self, handle: Handle) -> dict[str, Any]:
        """What the stored, optimised graph holds: the operators decide which kernels run.

        Returns:
            `int8_gemm_share`: share of the multiply-adds of products with a stored weight that are done in INT8.
            `precision_by_type`: number of products by operator, such as {"MatMulIntegerToFloat i8": 36, "Gemm f32": 2}.
            `sparse_weights`, `stored_weights`, `sparse_groups_kept`: see `optkit.engines.sparse_share`.
            `expanded_bytes`: of a graph that is stored packed.
        """
        graph = _graph(handle.folder, weights=True)
        tensors = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2}
        products: list[tuple[Any, str]] = []
        dequantized = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
        counts: Counter[str] = Counter()
        work = {"i8": 0, "f32": 0}
        for node in graph.node:
            if node.op_type not in (*_INT8_PRODUCTS, *_FLOAT_PRODUCTS):
                continue
            precision = "i8" if node.op_type in _INT8_PRODUCTS else "f32"
            counts[f"{node.op_type} {precision}"] += 1
            weights = [name for name in (dequantized.get(name, name) for name in node.input) if name in tensors]
            if weights:
                rows = 1 if "Gemm" in node.op_type else TOKENS
                work[precision] += rows * math.prod(tensors[weights[0]].dims)
                products.append((node, weights[0]))
        total = sum(work.values())
        return {
            "int8_gemm_share": work["i8"] / total if total else None,
            "precision_by_type": dict(sorted(counts.items())),
            **sparse_share(_weight(tensors[name], node) for node, name in products),
            **packed_weights.evidence(handle.folder / FILE),
        }

    def native_config(self, record: Record) -> dict[str, Any]:
        """The backend runs the stored graph as it is, optimised already; requests of one length that wait share a run."""
        optimization = {"graph": {"level": _NO_OPTIMISATION}}
        return super().native_config(record) | {"optimization": optimization, "dynamic_batching": {}}

    def native_parallelism(self, instances: int, threads: int | None) -> dict[str, str]:
        """Each instance has threads of its own."""
        return {} if threads is None else {"intra_op_thread_count": str(threads)}

    def containers(self, record: Record) -> Mapping[str, str]:
        """ONNX Runtime's version by container."""
        return CONTAINERS

    def runs_on_older(self, record: Record) -> bool:
        """Return True: graphs of 1.31.1 ran, with the same answers, in all versions from 1.24.4 on."""
        return True


def _prepared(graph: Path, settings: "onnxruntime.SessionOptions") -> bytes:
    """The graph with a quantiser for every product: ONNX Runtime leaves products that share one in float32.

    Weights in a file of their own are read from there, and written to one beside what `settings` has optimised.
    """
    from optkit.graph import onnx_file, passes  # read and write graphs; not needed to run an engine

    model = onnx_file.structure(graph)
    if onnx_file.is_external(model):
        for key, value in {
            "model_external_initializers_file_folder_path": str(graph.parent),
            "optimized_model_external_initializers_file_name": FILE + onnx_file.DATA,
            "optimized_model_external_initializers_min_size_in_bytes": str(onnx_file.SMALL),
        }.items():
            settings.add_session_config_entry(f"session.{key}", value)
    passes.split_quantizers(model.graph)
    return bytes(model.SerializeToString())


def _graph(folder: Path, weights: bool) -> Any:
    """The stored graph, expanded where it is packed; with weights that lie in another file or without."""
    import onnx  # reads the file; not needed to run an engine

    from optkit.graph import onnx_file

    if packed_weights.is_packed(folder / FILE):
        return onnx.load_from_string(packed_weights.expanded(folder / FILE).tobytes()).graph
    return (onnx_file.load if weights else onnx_file.structure)(folder / FILE).graph


def _initialisers(path: Path) -> Iterator[packed_weights.Place]:
    """Where the weights of a graph lie in its file; none where they lie in another."""
    from optkit.graph import onnx_file

    content, start = path.read_bytes(), 0
    for tensor in onnx_file.structure(path).graph.initializer:
        length = len(tensor.raw_data)
        if length >= onnx_file.SMALL and (offset := content.find(tensor.raw_data, start)) >= start:
            start = offset + length
            yield packed_weights.Place(offset, tuple(tensor.dims), length)


def _settings(threads: int) -> "onnxruntime.SessionOptions":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # threads that spin while they wait take the cores from the server, the clients and each other
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _weight(tensor: Any, product: Any) -> NDArray[Any]:
    """A stored weight as [out, in], around zero."""
    from onnx import numpy_helper

    transposed = any(attribute.name == "transB" and attribute.i for attribute in product.attribute)
    array = numpy_helper.to_array(tensor)
    if array.dtype == np.uint8:
        array = array.astype(np.int16) - _UNSIGNED_ZERO
    return array if transposed else array.T


RUNTIME = ONNXRuntime()
