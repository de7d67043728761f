"""What this machine's CPU can do."""

import logging
import os
from collections.abc import MutableMapping
from pathlib import Path

from optkit.core.cpu_quota import PROC, cpu_quota

log = logging.getLogger(__name__)
_X86 = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_ARM = ("asimddp", "i8mm", "bf16")
_FLAGS = (*_X86, *_ARM)
"""The flags of /proc/cpuinfo that decide how fast INT8 and 16-bit products are."""
INT8_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8", "i8mm")
"""CPU flags any of which makes INT8 products both fast and exact."""


def cpu_features() -> tuple[str, ...]:
    """Return the relevant instruction sets of this CPU; empty if the kernel does not list them."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ()
    lines = (line for line in text.splitlines() if line.startswith(("flags", "Features")))
    found = set(next(lines, "").split())
    return tuple(flag for flag in _FLAGS if flag in found)


def int8_saturates() -> bool:
    """Whether this CPU's fast INT8 products are wrong for large values: x86 without VNNI and AMX.

    There `vpmaddubsw` adds two products in 16 bits, which hold no more than half of what two full INT8 products can
    come to (oneDNN's developer guide, "Nuances of int8 computations").
    """
    have = cpu_features()
    return "avx2" in have and not set(INT8_FLAGS).intersection(have)


def available_threads(proc: Path = PROC) -> int:
    """Return the cores that this process may use, which in a container is often fewer than the machine has.

    A quota of 1.5 cores is one thread: threads that want more than the quota are all stopped until the next period (0.1 s),
    which every slow request then shows, and the half that is left does the work around the engine's.

    Args:
        proc: the process's folder, as `cpu_quota` reads it.
    """
    quota = cpu_quota(proc)
    return allowed_cores() if quota is None else max(1, min(allowed_cores(), int(quota)))


def bound_openmp(environment: MutableMapping[str, str], proc: Path = PROC) -> None:
    """Bound the threads of torch and NumPy by the quota, unless told how many: they count the affinity mask alone.

    Args:
        environment: of this process, before either is loaded.
        proc: as for `available_threads`.
    """
    if (threads := available_threads(proc)) < allowed_cores():
        environment.setdefault("OMP_NUM_THREADS", str(threads))


def allowed_cores() -> int:
    """Return the cores in this process's affinity mask."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_average() -> float:
    """The load average of the last minute, before something is measured; warns where it is more than half of the cores."""
    found, cores = os.getloadavg()[0], allowed_cores()
    if found > cores / 2:
        log.warning("the machine is busy (load average %.1f, %d cores): trust ratios within one run alone", found, cores)
    return round(found, 2)
