"""PyTorch compiled ahead of time (AOTInductor): on a CPU float32 and bf16, on an NVIDIA GPU also FP16, INT8, FP8 and 2:4.

The artefact is a package of machine code and weights, `model.pt2`, made from the graph and run without Python code of the
model. Where TensorRT cannot be installed it is the engine for a GPU. It is built where it is asked for by name: compiling
takes a C++ compiler and, for a large model, minutes.
"""

import dataclasses
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optkit.core import temporary
from optkit.core.cpu import available_threads, cpu_features
from optkit.core.errors import InputError, MachineError
from optkit.core.gpu import gpus
from optkit.engines.base import Measured, Record, Runtime, Tensors, promises_of_sparsity
from optkit.engines.checked_feed import checked
from optkit.engines.record import Fields, empty_folder, read_record, require_features, write_record
from optkit.engines.torch.packed_batch import INPUTS, Packing

if TYPE_CHECKING:
    from optkit.engines.torch.cuda_replay import Replay

FILE = "model.pt2"
SHORTEST = 4
"""Tokens of the shortest input that is compiled for; shorter ones are padded. Some families compute with one or two less."""
SIXTEEN_BIT = {"f32": None, "fp16": "fp16", "bf16": "bf16"}
"""By variant, the type that a graph gets where it is not quantised; None leaves it in float32."""


class _Fields(Fields):
    runtime_version: str
    device: str
    packed: bool
    output_shape: list[int]
    longest: int | None
    evidence: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Handle:
    """A loaded package: on a GPU with its recorded runs."""

    package: Any
    replay: "Replay | None"
    record: Record
    threads: int


class AheadOfTime(Runtime):
    """PyTorch's engines, on the GPU where there is one."""

    kind = package = "torch"
    artefacts = (FILE,)
    on_request = True

    @property
    def on_gpu(self) -> bool:  # type: ignore[override]
        """Whether engines built here run on a GPU."""
        return bool(gpus())

    def require(self) -> None:
        """Raise `MachineError` without PyTorch, or without the C++ compiler that it calls."""
        super().require()
        compiler = os.environ.get("CXX", "g++")  # as PyTorch looks for it
        if not shutil.which(compiler):
            raise MachineError(
                f"the torch engine is compiled by a C++ compiler, and this machine has no {compiler!r}. Install g++, or "
                "name another one, as CXX=clang++"
            )

    def runs_here(self) -> bool:
        """It runs on any machine."""
        return True

    def machine(self) -> dict[str, Any]:
        """The GPU that engines are compiled for."""
        return {"gpus": [gpu.name for gpu in gpus()[:1]]} if self.on_gpu else {}

    def precisions(self, graph_is_quantised: bool) -> tuple[str, ...]:
        """What can be built here: INT8 is for a GPU from Turing on, FP8 for one from Ada on, bf16 where it is multiplied."""
        if cards := gpus()[:1]:
            quantised = ("int8",) * cards[0].has_int8_tensor_cores + ("fp8",) * cards[0].has_fp8
            return quantised if graph_is_quantised else ("fp32", "fp16", *("bf16",) * cards[0].has_bf16)
        has_bf16 = {"avx512_bf16", "amx_bf16"} & set(cpu_features())
        return () if graph_is_quantised else ("fp32", "bf16") if has_bf16 else ("fp32",)

    def variants(self, precision: str) -> tuple[str, ...]:
        """The type of what is not quantised."""
        int8 = ("fp16", "bf16") if all(gpu.has_bf16 for gpu in gpus()[:1]) else ("fp16",)
        return {"fp32": ("f32",), "int8": int8, "fp8": ("bf16",)}.get(precision, (precision,))

    def build(self, graph: Path, precision: str, folder: Path, variant: str | None = None, options: Any = None) -> None:
        """Compile a graph for this machine and write it with `engine.json`.

        Args:
            graph: `model.onnx`; a quantised one for "int8" and "fp8".
            precision: one of `precisions`.
            folder: an existing, empty folder.
            variant: one of `variants`.
            options: there are none.

        Raises:
            InputError: another precision or variant, a folder that is not empty, or a graph with operators or sizes that
                cannot be compiled.
            MachineError: no C++ compiler.
        """
        possible = {name: self.variants(name) for name in (*self.precisions(False), *self.precisions(True))}
        chosen = variant or possible.get(precision, ("",))[0]
        if chosen not in possible.get(precision, ()):
            raise InputError(
                f"PyTorch cannot build precision {precision!r}, variant {chosen or 'default'!r}, here; expected a precision "
                f"with one of its variants, of {possible}"
            )
        self.require()
        import torch

        from optkit.engines.torch.compiling import compiled

        folder, device = empty_folder(folder), "cuda" if self.on_gpu else "cpu"
        with _scratch():
            made = compiled(graph, SIXTEEN_BIT[chosen], folder / FILE, device, SHORTEST, precision == "fp8")
        write_record(
            folder,
            kind=self.kind,
            precision=precision,
            variant=chosen,
            version=torch.__version__,
            inputs=list(made.inputs),
            device=device,
            output_shape=list(made.output),
            packed=made.packed,
            longest=made.longest,
            tables=made.tables,
            evidence=made.evidence,
            **self.machine(),
        )

    def stored_evidence(self, folder: Path) -> dict[str, Any]:
        """What the build found."""
        found: dict[str, Any] = read_record(folder, _Fields)["evidence"]
        return found

    def load(self, folder: Path, threads: int | None = None) -> Handle:
        """Load a package; `threads` None takes every core this process may use.

        Raises:
            InputError: a damaged package, or one of something else.
            MachineError: another version of PyTorch, another GPU, or a CPU without what the package was compiled for.
        """
        super().require()
        import torch

        from optkit.engines.torch.aot_package import loaded

        record = read_record(folder, _Fields)
        self._check(Path(folder), record, torch.__version__)
        on_gpu = record["device"] == "cuda"
        if on_gpu:
            from optkit.engines.torch.cuda_replay import Replay
        package = loaded(Path(folder) / FILE, len(record["inputs"]) + len(INPUTS) * record["packed"], on_gpu)
        return Handle(package, Replay(package) if on_gpu else None, record, threads or available_threads())

    def _check(self, folder: Path, record: Record, installed: str) -> None:
        again = "Build the engine again on this machine"
        if record["runtime_version"] != installed:
            raise MachineError(
                f"The engine in {folder} was compiled by PyTorch {record['runtime_version']}, this is {installed}. {again}"
            )
        if record["device"] == "cpu":
            require_features(folder, record["cpu_features"])
        elif record["gpus"] != (found := [gpu.name for gpu in gpus()[:1]]):
            raise MachineError(
                f"The engine in {folder} is for {record['gpus'][0]}, found {(found or ['no GPU'])[0]}. {again}"
            )

    def infer(self, handle: Handle, feed: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Logits, float32, of int64 tensors [batch, sequence]; tensors that the engine does not take are ignored.

        Raises:
            InputError: inputs of several shapes, too many tokens, or a number that the model has no embedding for.
        """
        import torch

        arrays = checked(feed, handle.record)
        mask, length = np.asarray(feed["attention_mask"]), arrays[0].shape[1]
        if length < SHORTEST:
            arrays, mask = [_widened(array) for array in arrays], _widened(mask)
        tensors = [torch.from_numpy(array) for array in (*arrays, *(Packing.of(mask) if handle.record["packed"] else ()))]
        with torch.inference_mode(), _in_threads(handle.threads):
            output = handle.replay.run(tensors) if handle.replay else handle.package(*tensors)
        logits: NDArray[np.float32] = output.numpy()
        return logits[:, :length] if handle.record["output_shape"][1:2] == [-1] else logits

    def evidence(self, handle: Handle) -> dict[str, Any]:
        """What was compiled.

        Returns:
            `int8_gemm_share`, `fp8_gemm_share`: share of the multiply-adds of products with a stored weight that are.
            `fused`: how many nodes became one kernel, by what they are.
            `sparse_weights`, `stored_weights`, `sparse_groups_kept`: see `optkit.engines.sparse_share`.
            `sparse_layers_eligible`, `sparse_layers_chosen`: on a GPU, see `optkit.engines.torch.sparse_products`.
        """
        found: dict[str, Any] = handle.record["evidence"]
        return found

    def promises(self, row: Measured) -> Iterator[tuple[str, str]]:
        """What 2:4 is for on a GPU."""
        return promises_of_sparsity(row)

    def tensors(self, folder: Path) -> Tensors:
        """Inputs and outputs, by their numbers: Triton's platform for packages knows no other names of positions. Those of a
        packed one are made by optkit's backend alone."""
        record = read_record(folder, _Fields)
        if record["packed"]:
            raise InputError(
                f"{folder} computes without padding, which optkit's backend alone knows. Serve it with --flavour python"
            )
        inputs = [{"name": f"INPUT__{place}", "dtype": "int64", "shape": [-1, -1]} for place in range(len(record["inputs"]))]
        return {"inputs": inputs, "outputs": [{"name": "OUTPUT__0", "dtype": "float32", "shape": record["output_shape"]}]}

    def largest_batch(self, record: Record) -> int:
        """Return 0, no batching by Triton: its platform `torch_aoti` does not batch."""
        return 0

    def native_config(self, record: Record) -> dict[str, Any]:
        """Return the settings of Triton's experimental platform for these packages, in containers from 26.05 on."""
        kind = "KIND_GPU" if record["device"] == "cuda" else "KIND_CPU"
        return {"backend": "pytorch", "platform": "torch_aoti", "instance_group": [{"count": 1, "kind": kind}]}

    def runs_on_newer(self, record: Record) -> bool:
        """Return False: a package is machine code that calls the very PyTorch that compiled it."""
        return False


def _widened(array: NDArray[Any]) -> NDArray[Any]:
    return np.pad(array, ((0, 0), (0, SHORTEST - array.shape[1])))


@contextmanager
def _in_threads(count: int) -> Iterator[None]:
    """PyTorch computes in so many threads, and afterwards in as many as before, for trainings of this process."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _scratch() -> Iterator[None]:
    """A folder for what the compiler writes, which is gone afterwards."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    with temporary.folder("optkit-compile") as folder:
        os.environ[name] = str(folder)
        try:
            yield
        finally:
            os.environ.pop(name) if before is None else os.environ.update({name: before})


RUNTIME = AheadOfTime()
