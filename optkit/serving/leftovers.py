"""Ends what killed servers left on this machine: processes, shared memory, and empty folders of Triton's Python backend.

A server owns a folder in /dev/shm (`optkit.core.temporary`), with its sockets. Its processes have the folder's name in their
command lines, and its regions of shared memory begin with it.
"""

import os
import re
import signal
import tempfile
from contextlib import suppress
from pathlib import Path

from optkit.core import temporary
from optkit.serving.ticket import SOCKETS

SHARED_MEMORY = Path("/dev/shm")
_SERVER = re.compile(rf"{SOCKETS}-[0-9a-f]{{8}}-[0-9a-f]{{8}}")
_ENVIRONMENTS = Path("/tmp")  # Triton has it in its code
_STARTING_S = 600.0
_PROC = Path("/proc")


def sweep() -> None:
    """Remove what commands that were killed left in the folder for temporary files, and their servers.

    What cannot be removed stays: this is done before other work, which it must not stop.
    """
    with suppress(OSError):
        temporary.sweep(Path(tempfile.gettempdir()), "optkit-")
        temporary.sweep(SHARED_MEMORY, SOCKETS, first=lambda folder: end(folder.name))
        for found in {match[0] for name in os.listdir(SHARED_MEMORY) if (match := _SERVER.match(name))}:
            if not (SHARED_MEMORY / found).exists():  # whoever removed the folder was killed then
                end(found)
        remove_environments()


def end(identity: str) -> None:
    """Kill what is left of a server, and remove its shared memory.

    Args:
        identity: of the server, whose owner is gone.
    """
    for process in _processes():
        with suppress(OSError):  # gone, or another user's
            if identity.encode() in (process / "cmdline").read_bytes() and process.name != str(os.getpid()):
                os.kill(int(process.name), signal.SIGKILL)
    for region in SHARED_MEMORY.glob(f"{identity}-*"):
        with suppress(OSError):
            region.unlink()


def environments() -> set[Path]:
    """Folders of Triton's Python backend for packed environments, which our models have none of.

    A server makes one, in a place that cannot be set, when it loads its first model. It leaves it behind when it is
    killed, and fails at a graceful end where it is gone already.
    """
    return set(_ENVIRONMENTS.glob("python_env_*"))


def remove_environments() -> None:
    """Remove the folders that are no living server's, as none had started shortly before they were made."""
    found = environments()
    started = _starts_of_servers() if found else []
    for folder in found:
        with suppress(OSError):  # gone, not empty, or another user's
            made = folder.stat().st_mtime
            if not any(start - 1 <= made <= start + _STARTING_S for start in started):
                folder.rmdir()


def _starts_of_servers() -> list[float]:
    """When each tritonserver that lives was started, in seconds of Unix time."""
    boot = next(int(line.split()[1]) for line in (_PROC / "stat").read_text().splitlines() if line.startswith("btime "))
    found = []
    for process in _processes():
        with suppress(OSError):
            name, _, rest = (process / "stat").read_text().partition("(")[2].rpartition(")")
            state, *fields = rest.split()
            if name == "tritonserver" and state != "Z":  # one that ended, and whose parent has not asked how
                found.append(boot + int(fields[18]) / os.sysconf("SC_CLK_TCK"))
    return found


def _processes() -> list[Path]:
    return [path for path in _PROC.iterdir() if path.name.isdecimal()]
