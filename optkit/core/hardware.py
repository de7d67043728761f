"""What this machine is, in the words in which results name it."""

from collections import Counter
from pathlib import Path

from optkit.core.cpu import available_threads
from optkit.core.gpu import gpus

_CPUINFO = Path("/proc/cpuinfo")


def processor() -> str:
    """Return the processor's name, "unknown" where the kernel does not tell."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def in_words() -> str:
    """Return processor, cores that this process may use, and GPUs: machines of equal words measure the same."""
    cards = [f"{count} × {name}" for name, count in Counter(gpu.name for gpu in gpus()).items()]
    threads = available_threads()
    return ", ".join([processor(), f"{threads} core{'s' * (threads > 1)}", *cards])
