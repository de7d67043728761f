"""What a kind of engine is: one subclass of `Runtime`, in one file, and nothing else is known of it elsewhere.

`optkit.engines.registry` names optkit's own kinds; another package brings one by an entry point that names an instance:

    [options.entry_points]
    optkit.engines =
        mine = my_package.engine:RUNTIME

A subclass imports its packages inside its methods: results are compared where they are not installed, and the server's
processes load what they run and no more.
"""

import importlib
import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

from optkit.core.errors import InputError, MachineError
from optkit.core.gpu import gpus
from optkit.engines.build_options import BuildOptions

Record = Mapping[str, Any]
"""Content of an engine's `engine.json`."""
Tensors = dict[str, list[dict[str, Any]]]
"""`inputs` and `outputs`, each tensor with `name`, `dtype` (NumPy's word) and `shape`, -1 where it varies."""


class Measured(Protocol):
    """What the gate knows of an engine (`optkit.evaluation.results.Row`), as far as a kind may promise something of it."""

    precision: str
    sparsity: str | None
    speedup_vs_16bit: dict[str, float] | None
    evidence: dict[str, Any]


class Runtime(ABC):
    """A kind of engine. What a subclass does not say holds as it stands here, which is right for most that run on a CPU."""

    kind: ClassVar[str]
    """Its name: in `--engine`, in `engine.json`, and of its entry point."""
    package: ClassVar[str]
    """The Python package that runs it, as pip and `import` know it."""
    on_gpu: ClassVar[bool] = False
    """Whether its engines run on an NVIDIA GPU."""
    needs: ClassVar[str] = "an NVIDIA GPU with its driver"
    """What they need to run, for messages; what runs on a CPU runs everywhere."""
    builds_without_running: ClassVar[bool] = False
    """Whether its engines can be built, for what that tells of a graph, where they do not run."""
    needs_ranges: ClassVar[bool] = False
    """Whether INT8 also needs the ranges of tensors that the graph does not quantise, in `ranges.json` beside it."""
    options: ClassVar[type[BuildOptions]] = BuildOptions
    """What its builds can be told."""
    artefacts: ClassVar[tuple[str, ...]] = ()
    """Files that Triton's native backend wants, as they lie in an engine's folder. In a folder `1/` there, they make the
    engine's folder a model of a repository as it is."""

    # ---- what this machine has

    def version(self) -> str | None:
        """The version that is installed, found without importing it; None without."""
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None

    def require(self) -> None:
        """Raise `MachineError` where nothing of this kind can be built, because its package is not installed."""
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
        """Whether its engines run on this machine, where its package is installed."""
        return not self.on_gpu or bool(gpus())

    def machine(self) -> dict[str, Any]:
        """What its engines depend on beside the CPU and the version."""
        return {"gpus": [gpu.name for gpu in gpus()[:1]]} if self.on_gpu else {}

    # ---- building

    @abstractmethod
    def precisions(self, graph_is_quantised: bool) -> tuple[str, ...]:
        """What this machine can build from such a graph, of "fp32", "bf16", "fp16" and "int8"."""

    def variants(self, precision: str) -> tuple[str, ...]:
        """The ways to build a precision that are worth comparing, named after what stays float; the default first."""
        return ("f32",)

    def build_options(self, given: Mapping[str, Any]) -> BuildOptions:
        """The options of a build from texts or JSON's types by key.

        Raises:
            InputError: naming every one that is wrong.
        """
        return self.options.parse(self.kind, given)

    @abstractmethod
    def build(self, graph: Path, precision: str, folder: Path, variant: str | None = None, options: Any = None) -> None:
        """Write the engine of a graph and its `engine.json` (`optkit.engines.record.write_record`) into a folder.

        Args:
            graph: `model.onnx`; a quantised one for "int8".
            precision: one of `precisions`.
            folder: existing and empty.
            variant: one of `variants`; None for the default.
            options: of the class `self.options`; None for the defaults.
        """

    def preferred(self, graph: Path, precision: str, options: Any) -> str:
        """The variant to build where none can be timed."""
        return self.variants(precision)[0]

    def stored_evidence(self, folder: Path) -> dict[str, Any]:
        """What a build has left of `evidence`, for engines that do not run here."""
        return {}

    # ---- running

    @abstractmethod
    def load(self, folder: Path, threads: int | None = None) -> Any:
        """A handle, ready to run; `threads` None takes every core that this process may use."""

    @abstractmethod
    def infer(self, handle: Any, feed: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Logits, float32, [batch, classes] or [batch, sequence, 2], of `{name: int64 [batch, sequence]}`."""

    @abstractmethod
    def evidence(self, handle: Any) -> dict[str, Any]:
        """What the runtime says it runs: `int8_gemm_share` above all, and `sparse_weights` for 2:4 sparsity."""

    # ---- what is held against its engines

    def promises(self, row: Measured) -> Iterable[tuple[str, str]]:
        """What the gate finds broken of what engines of this kind are for: verdicts with their reasons."""
        return ()

    def longest_input(self, record: Record) -> int | None:
        """Tokens of the longest input that an engine takes; None where the model decides."""
        return None

    # ---- serving from NVIDIA's containers

    def tensors(self, folder: Path) -> Tensors:
        """Inputs and outputs as the artefact has them."""
        raise InputError(
            f"{folder}: Triton has no native backend for {self.kind} engines. Serve it with optkit's: --flavour python"
        )

    def largest_batch(self, record: Record) -> int:
        """Up to how many rows Triton may hand to the native backend at once; 0: it does not batch, the engine takes any."""
        return 64

    def native_config(self, record: Record) -> dict[str, Any]:
        """Fields of Triton's model configuration (`model_config.proto`) beside the tensors and the batch size."""
        return {"backend": self.kind, "instance_group": [{"count": 1, "kind": "KIND_GPU" if self.on_gpu else "KIND_CPU"}]}

    def containers(self, record: Record) -> Mapping[str, str]:
        """The runtime's version by the tag of the container `nvcr.io/nvidia/tritonserver:<tag>-py3`, as far as known.

        Raises:
            MachineError: no container runs the engine, whichever version is in it.
        """
        return {}

    def runs_on_newer(self, record: Record) -> bool:
        """Whether newer versions of the runtime run an engine."""
        return True

    def server_options(self, record: Record) -> tuple[str, ...]:
        """What `tritonserver` has to be told so that it runs an engine."""
        return ()
