"""Runs one command and ends it, with all its children, when the process that asked for it is gone.

A script of its own on the standard library alone, so that it starts in a few milliseconds:

    python -I -S supervisor.py PARENT_PID GRACE_S SHARED_MEMORY_PREFIX COMMAND…

`PR_SET_PDEATHSIG` alone is not enough for the server: it fires when the *thread* that started it ends, and the
server's own children do not inherit it. The supervisor watches its parent's process id instead, and adopts orphans.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
POLL_S = 0.2
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WATCHED = (*ENDING, signal.SIGCHLD)
SERVER = "OPTKIT_SERVER"
"""Variable with the server's process id, by which its backend processes know that it is gone."""


def main(parent: int, grace_s: float, prefix: str, command: list[str]) -> int:
    """Run `command` until it ends, a signal comes or `parent` is gone; returns the command's exit status."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    child = _start(command, libc)
    status = _watch(child, parent)
    if status is None and grace_s > 0:
        status = _end_gracefully(child, grace_s)
    killed = _kill_all(child)
    _remove_shared_memory(prefix)
    return os.waitstatus_to_exitcode(killed if status is None else status) & 0xFF


def _start(command: list[str], libc: ctypes.CDLL) -> int:
    """Fork the command into a process group of its own, which dies with the supervisor."""
    supervisor, child = os.getpid(), os.fork()
    if child:
        return child
    libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != supervisor:  # killed meanwhile
        os._exit(127)
    os.environ[SERVER] = str(os.getpid())
    os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    os._exit(127)


def _watch(child: int, parent: int) -> int | None:
    """The child's wait status once it has ended, or None as soon as it is to be ended."""
    while os.getppid() == parent:
        received = signal.sigtimedwait(WATCHED, POLL_S)
        if received is not None and received.si_signo in ENDING:
            return None
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
    return None


def _end_gracefully(child: int, grace_s: float) -> int | None:
    """Ask the child to end, and give it `grace_s` seconds."""
    os.kill(child, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        signal.sigtimedwait([signal.SIGCHLD], POLL_S)
    return None


def _kill_all(child: int) -> int:
    """Kill the child's process group and wait until every process of it is gone; returns the child's wait status."""
    child_status = 0
    while True:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        try:
            ended, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return child_status
        if ended == child:
            child_status = status


def _remove_shared_memory(prefix: str) -> None:
    """A killed Python backend leaves its shared memory regions behind."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/dev/shm"):
            if name.startswith(f"{prefix}-"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"/dev/shm/{name}")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4:]))
