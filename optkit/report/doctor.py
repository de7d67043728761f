"""What this machine can do, and how to get what it lacks."""

import importlib.metadata
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from optkit.core.cpu import INT8_FLAGS, allowed_cores, available_threads, cpu_features
from optkit.core.cpu_quota import PROC, cpu_quota
from optkit.core.errors import MachineError
from optkit.core.gpu import Gpu, gpus
from optkit.engines import registry as engines
from optkit.engines.base import Runtime
from optkit.engines.tensorrt import library
from optkit.engines.tensorrt.compatibility import check_driver
from optkit.engines.tensorrt.deployment import CONTAINERS
from optkit.engines.tensorrt.engine import RUNTIME as _TENSORRT
from optkit.engines.tensorrt.model_check import Finding
from optkit.serving import install
from optkit.serving.containers import IMAGE

_DOCKER_S = 5.0
_BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")


def examine() -> dict[str, list[Finding]]:
    """Everything that was looked at, by part of the machine."""
    return {"CPU": _cpu(), "engines": _engines(), "GPU": _gpu(gpus()), "TensorRT": _tensorrt(gpus()), "Triton": _triton()}


def _cpu() -> list[Finding]:
    have = cpu_features()
    int8, bf16 = ([flag for flag in flags if flag in have] for flags in (INT8_FLAGS, _BF16_FLAGS))
    slow = (
        "ONNX Runtime's INT8 engines are exact here and slower than they could be; OpenVINO's would saturate and are left "
        "out. A CPU with VNNI (2019 on) or AMX would do"
    )
    return [
        Finding("cores", _cores()),
        Finding("INT8", ", ".join(int8) or "no VNNI, no AMX", bool(int8), slow),
        Finding("16 bits", ", ".join(bf16) or "no bf16", bool(bf16), "there is no 16-bit engine on this CPU"),
    ]


def _cores(proc: Path = PROC) -> str:
    """Return how many cores this process takes, and what limits them."""
    quota = cpu_quota(proc)
    limit = "no quota" if quota is None else f"a quota of {quota:g}"
    return f"{available_threads(proc)} for this process ({allowed_cores()} in its affinity mask, {limit})"


def _engines() -> list[Finding]:
    findings = []
    for kind in engines.kinds():
        try:
            runtime = engines.runtime(kind)
        except MachineError as error:
            findings.append(Finding(kind, "cannot be used", False, str(error)))
            continue
        if kind != _TENSORRT.kind:  # it has a part of its own
            findings.append(_engine(runtime))
    return findings


def _engine(runtime: Runtime) -> Finding:
    """Whether engines of a kind can be built, and what else they need than its package."""
    version = runtime.version()
    try:
        runtime.require()
    except MachineError as error:
        return Finding(runtime.kind, version or "not installed", False, str(error))
    return Finding(runtime.kind, version or "there")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpu(found: Iterable[Gpu]) -> list[Finding]:
    """A few lines per card; the cards' own limits are found and no fault."""
    findings = []
    for gpu in found:
        capability = ".".join(map(str, gpu.capability))
        free, total = gpu.free_bytes >> 20, gpu.memory_bytes >> 20
        findings += [
            Finding("card", f"{gpu.name}, compute capability {capability}, {free} of {total} MiB free"),
            Finding("driver", f"{gpu.driver}, knows CUDA up to {gpu.cuda[0]}.{gpu.cuda[1]}"),
            Finding("INT8 tensor cores", *_present(gpu.has_int8_tensor_cores, "Turing (compute capability 7.5)")),
            Finding("2:4 tensor cores", *_present(gpu.has_sparse_tensor_cores, "Ampere (compute capability 8.0)")),
            Finding("bf16", *_present(gpu.has_bf16, "Ampere (compute capability 8.0)")),
        ]
        torch = _version("torch") or ""
        fix = "pip install torch from the index of your CUDA version: https://pytorch.org/get-started/locally"
        findings.append(Finding("torch", torch, not torch.endswith("+cpu"), fix))
    if findings:
        return findings
    fix = (
        "TensorRT's plans need an NVIDIA card: from Turing on for INT8, from Ampere on for 2:4 and bf16. If there is one, "
        "install its driver: nvidia-smi must list it"
    )
    return [Finding("card", "none that CUDA gives this process", False, fix)]


def _present(there: bool, since: str) -> tuple[str, bool, str]:
    return ("yes" if there else "no", there, f"they come with {since} and later cards")


def _tensorrt(found: tuple[Gpu, ...]) -> list[Finding]:
    version = library.installed_version()
    if version is None:
        fix = f"with a GPU: {library.INSTALL}; to build plans without one: {library.INSTALL_BUILDER}"
        return [Finding("tensorrt", "not installed", False, fix)]
    if library.is_offline():
        text = f"{version}, without a GPU: builds plans that show what TensorRT makes of a graph, and runs none"
        return [Finding("tensorrt", text, not found, library.INSTALL)]
    findings = [Finding("tensorrt", version)]
    try:
        for gpu in found[:1]:
            check_driver(gpu, library.cuda())
    except MachineError as error:
        findings.append(Finding("driver", "too old for this TensorRT", False, str(error)))
    return findings


def _triton() -> list[Finding]:
    try:
        install.find()
    except MachineError as error:
        wheel = Finding("server", "cannot be started", False, str(error))
    else:
        wheel = Finding("server", f"tritonserver of {install.WHEEL} {_version(install.WHEEL)}")
    table = ", ".join(f"{tag} has {version}" for tag, version in CONTAINERS.items())
    docker = _docker()
    there = f"{docker}; {IMAGE} with TensorRT: {table}" if docker else "no docker that answers"
    fix = "only needed for the models of `optkit build --flavour native`; plans also need NVIDIA's container toolkit"
    return [wheel, Finding("container", there, bool(docker), fix)]


def _docker() -> str:
    """Docker's version by its daemon's own account; empty where none answers."""
    if shutil.which("docker") is None:
        return ""
    try:
        asked = ["docker", "version", "--format", "docker {{.Server.Version}}"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=_DOCKER_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def render(parts: dict[str, list[Finding]]) -> str:
    """Plain text, one line per finding; what is missing is marked, with the fix below it."""
    lines = []
    for part, findings in parts.items():
        lines.append(part)
        for finding in findings:
            lines.append(f"  {'ok' if finding.fine else '--'}  {finding.name}: {finding.found}")
            if not finding.fine and finding.fix:
                lines.append(f"        {finding.fix}")
    return "\n".join(lines) + "\n"
