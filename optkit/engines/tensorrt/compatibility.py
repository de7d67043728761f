"""What lies in the folder of a built plan, and whether this machine can run it.

The folder is a model of Triton's native backend as it is: `config.pbtxt` (written by `optkit.serving.native`) and
`1/model.plan`, with `engine.json`, `evidence.json` and TensorRT's log beside them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optkit.core.errors import MachineError
from optkit.core.gpu import OLDEST_DRIVER, Gpu, gpus
from optkit.engines.tensorrt import library

PLAN = "1/model.plan"
EVIDENCE = "evidence.json"
LOG = "build.log"


def check_machine(folder: Path, record: Mapping[str, Any]) -> None:
    """Raise `MachineError` unless a plan can run here: TensorRT's version, a GPU, its architecture, the driver."""
    if record["offline"]:
        raise MachineError(
            f"The plan in {folder} was built without a GPU, by TensorRT for RTX: it shows what TensorRT makes of the graph "
            f"and is not meant to run. On a machine with a GPU: {library.INSTALL}, and build it there"
        )
    if library.is_offline() or library.installed_version() is None:
        raise MachineError(f"The plan in {folder} needs TensorRT {record['runtime_version']}. Run: {library.INSTALL}")
    check_version(folder, record, library.load().__version__)
    found = gpus()
    if not found:
        raise MachineError(f"The plan in {folder} needs an NVIDIA GPU, and this machine has none. See `optkit doctor`")
    check_gpu(folder, record, found[0])


def check_version(folder: Path, record: Mapping[str, Any], installed: str) -> None:
    """Raise `MachineError` where a plan was built by another TensorRT than `installed`."""
    built, compatible = record["runtime_version"], record["settings"]["version_compatible"]
    wanted, have = (tuple(int(part) for part in text.split(".")[:3]) for text in (built, installed))
    if have == wanted or (compatible and have > wanted):
        return
    raise MachineError(
        f"The plan in {folder} was built by TensorRT {built}, and {installed} is installed: plans run on the version that "
        "built them. Build the engine again here"
        + ("" if compatible else ", or build it with --version-compatible for newer versions")
    )


def check_gpu(folder: Path, record: Mapping[str, Any], gpu: Gpu) -> None:
    """Raise `MachineError` where a plan was built for another architecture, or the driver is too old for its CUDA."""
    built = tuple(record["capability"])
    hardware = record["settings"]["hardware"]
    fits = gpu.capability == built or (hardware == "ampere_plus" and gpu.capability >= (8, 0) and built >= (8, 0))
    if not fits:
        raise MachineError(
            f"The plan in {folder} was built on {record['gpu']} (compute capability {built[0]}.{built[1]}), and this is "
            f"{gpu.name} ({gpu.capability[0]}.{gpu.capability[1]}). Build the engine again here, or build it with "
            "--hardware ampere_plus for several architectures"
        )
    check_driver(gpu, record["cuda"])


def check_driver(gpu: Gpu, cuda: int) -> None:
    """Raise `MachineError` where the driver is too old for a major version of CUDA, and no `cuda-compat` is beside it."""
    if gpu.cuda[0] < cuda:
        raise MachineError(
            f"{gpu.name} has driver {gpu.driver}, which knows CUDA up to {gpu.cuda[0]}.{gpu.cuda[1]}; TensorRT for CUDA "
            f"{cuda} needs driver {OLDEST_DRIVER.get(cuda, 'of that version')} or newer. Update the driver, install "
            f"cuda-compat-{cuda}-0 (data-centre cards), or install tensorrt-cu{gpu.cuda[0]}"
        )
