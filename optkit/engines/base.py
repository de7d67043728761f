"""Base class of engine kinds. A kind is one subclass of `Runtime` in one file; no other module depends on it.

`optkit.engines.registry` names optkit's own kinds; another package adds one by an entry point that names an instance:

    [options.entry_points]
    optkit.engines =
        mine = my_package.engine:RUNTIME

A subclass imports its packages inside its methods: results can be compared where they are not installed, and the server's
processes load only what they run.
"""

import importlib
import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

from optkit.core.errors import InputError, MachineError
from optkit.core.gpu import gpus
from optkit.engines.build_options import BuildOptions

Record = Mapping[str, Any]
"""Content of an engine's `engine.json`."""
Tensors = dict[str, list[dict[str, Any]]]
"""Tensors of an engine under `inputs` and `outputs`, each with `name`, `dtype` (NumPy's name) and `shape` (-1: dynamic)."""

TOKENS = 128
"""Sequence length at which the encoder's work is weighed against that of pooler and classifier, done once per row."""


class Measured(Protocol):
    """The fields of a result row (`optkit.evaluation.results.Row`) that `Runtime.promises` may check."""

    precision: str
    sparsity: str | None
    speedup_vs_16bit: dict[str, float] | None
    evidence: dict[str, Any]


def promises_of_sparsity(row: Measured) -> Iterator[tuple[str, str]]:
    """Give the check that a row fails of what 2:4 is for on a GPU, as `Runtime.promises` does: kernels that skip the zeros.

    Args:
        row: result row of an engine of a kind whose evidence counts `sparse_layers_eligible` and `sparse_layers_chosen`.
    """
    if row.sparsity == "2:4" and row.evidence.get("sparse_layers_chosen") == 0:
        eligible = row.evidence.get("sparse_layers_eligible")
        yield "fail", f"no layer runs a 2:4 kernel ({'unknown' if eligible is None else eligible} were eligible)"


class Runtime(ABC):
    """Base class of an engine kind. The defaults suit most runtimes on a CPU."""

    kind: ClassVar[str]
    """Name of the kind: in `--engine`, in `engine.json`, and of its entry point."""
    package: ClassVar[str]
    """Python package of the runtime, the same name for pip and `import`."""
    on_gpu: ClassVar[bool] = False
    """Whether the engines run on an NVIDIA GPU."""
    on_request: ClassVar[bool] = False
    """Whether engines are built only where the kind is asked for by name, such as for the time that it takes."""
    needs: ClassVar[str] = "an NVIDIA GPU with its driver"
    """Hardware that the engines need, for messages; unused for kinds that run on a CPU."""
    builds_without_running: ClassVar[bool] = False
    """Whether engines can be built on machines that cannot run them, for the evidence of the build."""
    needs_ranges: ClassVar[bool] = False
    """Whether INT8 also needs ranges of tensors that the graph does not quantise, from `ranges.json` beside the graph."""
    options: ClassVar[type[BuildOptions]] = BuildOptions
    """Class of the build options."""
    artefacts: ClassVar[tuple[str, ...]] = ()
    """Files that Triton's native backend needs, relative to the engine's folder, where they may be packed
    (`optkit.engines.packed_weights`). If they lie in `1/`, the engine's folder
    can serve as a model of a repository unchanged."""

    # ---- what this machine has

    def version(self) -> str | None:
        """Return the installed version of the runtime without importing it; None if it is not installed."""
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None

    def require(self) -> None:
        """Raise `MachineError` if engines of this kind cannot be built because the package is not installed."""
        try:
            importlib.import_module(self.package)
        except ModuleNotFoundError as error:
            if error.name != self.package:
                raise
            raise MachineError(
                f"The {self.kind} engine needs the Python package {self.package}, which is not installed. Run: pip install "
                f"{self.package}"
            ) from error

    def runs_here(self) -> bool:
        """Return whether this machine has the hardware to run the engines; the package is not checked."""
        return not self.on_gpu or bool(gpus())

    def machine(self) -> dict[str, Any]:
        """Return what the engines depend on besides the CPU and the runtime's version, in JSON types."""
        return {"gpus": [gpu.name for gpu in gpus()[:1]]} if self.on_gpu else {}

    # ---- building

    @abstractmethod
    def precisions(self, graph_is_quantised: bool) -> tuple[str, ...]:
        """Return the precisions that this machine can build, out of "fp32", "bf16", "fp16", "int8" and "fp8".

        Args:
            graph_is_quantised: whether the graph has quantisers.
        """

    def variants(self, precision: str) -> tuple[str, ...]:
        """Return the build variants of a precision to compare, named after the type of what stays float; the default first.

        Args:
            precision: one of `precisions`.
        """
        return ("f32",)

    def build_options(self, given: Mapping[str, Any]) -> BuildOptions:
        """Parse build options.

        Args:
            given: option values by key, as text or JSON types.

        Raises:
            InputError: an option is unknown or invalid; the message names all of them.
        """
        return self.options.parse(self.kind, given)

    @abstractmethod
    def build(self, graph: Path, precision: str, folder: Path, variant: str | None = None, options: Any = None) -> None:
        """Build the engine of a graph into a folder, with its `engine.json` (`optkit.engines.record.write_record`).

        Args:
            graph: path of `model.onnx`, with quantisers for "int8" and "fp8".
            precision: one of `precisions`.
            folder: existing, empty folder.
            variant: one of `variants`; None for the default.
            options: instance of `self.options`; None for the defaults.
        """

    def preferred(self, graph: Path, precision: str, options: Any) -> str:
        """Return the variant to build on a machine that cannot time engines.

        Args:
            graph: path of `model.onnx`.
            precision: one of `precisions`.
            options: instance of `self.options`.
        """
        return self.variants(precision)[0]

    def stored_evidence(self, folder: Path) -> dict[str, Any]:
        """Return the evidence that the build stored in an engine's folder, for engines that cannot run here."""
        return {}

    # ---- running

    @abstractmethod
    def load(self, folder: Path, threads: int | None = None) -> Any:
        """Load an engine.

        Args:
            folder: folder of the engine.
            threads: number of CPU threads; None for every core that this process may use.

        Returns:
            A handle for `infer` and `evidence`.
        """

    @abstractmethod
    def infer(self, handle: Any, feed: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Run one batch.

        Args:
            handle: handle from `load`.
            feed: inputs by name, int64 [batch, sequence].

        Returns:
            Logits, float32, such as [batch, classes] or [batch, sequence, 2].
        """

    @abstractmethod
    def evidence(self, handle: Any) -> dict[str, Any]:
        """Return what the runtime reports about the kernels it runs, such as `int8_gemm_share`, and `sparse_weights` for 2:4
        sparsity.

        Args:
            handle: handle from `load`.
        """

    # ---- what is held against its engines

    def promises(self, row: Measured) -> Iterable[tuple[str, str]]:
        """Return the checks specific to this kind that a result row fails, as (verdict, reason) for the gate.

        Args:
            row: result row of an engine of this kind.
        """
        return ()

    def longest_input(self, record: Record) -> int | None:
        """Return the longest input of an engine in tokens; None if its record does not say, as those of before did not."""
        longest: int | None = record.get("longest")
        return longest

    # ---- serving from NVIDIA's containers

    def tensors(self, folder: Path) -> Tensors:
        """Return inputs and outputs of an engine, as stored in its artefact.

        Raises:
            InputError: Triton has no native backend for this kind.
        """
        raise InputError(
            f"{folder}: Triton has no native backend for {self.kind} engines. Serve it with optkit's: --flavour python"
        )

    def largest_batch(self, record: Record) -> int:
        """Return the native backend's `max_batch_size`; 0 disables batching by Triton, and the engine takes any batch."""
        return 64

    def native_config(self, record: Record) -> dict[str, Any]:
        """Return the fields of Triton's model configuration (`model_config.proto`) besides tensors and batch size."""
        return {"backend": self.kind, "instance_group": [{"count": 1, "kind": "KIND_GPU" if self.on_gpu else "KIND_CPU"}]}

    def native_parallelism(self, instances: int, threads: int | None) -> dict[str, str]:
        """Return the native backend's parameters for so many instances of so many threads each (None: its own choice), in
        addition to the instance group."""
        return {}

    def native_record(self, record: Record) -> Record:
        """Return the record of an engine as the native backend computes it, which may be in another variant.

        Raises:
            InputError: it does not compute it in its precision.
        """
        return record

    def containers(self, record: Record) -> Mapping[str, str]:
        """Return the known versions of the runtime by tag of the container `nvcr.io/nvidia/tritonserver:<tag>-py3`.

        Raises:
            MachineError: no container runs the engine, regardless of the version.
        """
        return {}

    def install(self, version: str) -> str:
        """Return the command that installs a version of the runtime."""
        return f"pip install '{self.package}=={version}.*'"

    def runs_on_newer(self, record: Record) -> bool:
        """Return whether newer versions of the runtime run an engine."""
        return True

    def runs_on_older(self, record: Record) -> bool:
        """Return whether older versions of the runtime have been seen to run an engine, without a promise of the runtime."""
        return False

    def server_options(self, record: Record) -> tuple[str, ...]:
        """Return the command-line options that `tritonserver` needs to run an engine."""
        return ()

    def node_labels(self, record: Record) -> dict[str, str]:
        """Return the labels of Kubernetes nodes on which an engine runs, as NVIDIA's GPU feature discovery sets them."""
        return {}
