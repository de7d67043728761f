"""The process of tritonserver with its backend processes: started under a supervisor, and ended with all it leaves."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from optkit.serving import leftovers, memory, slots
from optkit.serving.install import Installation
from optkit.serving.ticket import Ticket

SUPERVISOR = Path(__file__).with_name("supervisor.py")


class TritonProcess:
    """A tritonserver that runs; it also ends when this process is killed.

    Args:
        installation: the server.
        arguments: of its command line.
        ticket: of the server.
        grace_s: seconds given to requests in flight when it is ended; 0 ends it at once.
        log: its standard output and error.
    """

    def __init__(
        self, installation: Installation, arguments: Sequence[str], ticket: Ticket, grace_s: float, log: BinaryIO
    ) -> None:
        self.identity = ticket.identity
        self.grace_s = grace_s
        self._environments: set[Path] = set()
        environment = installation.environment | {slots.VARIABLE: str(Path(ticket.folder, slots.FILE))}
        variables = [f"{name}={value}" for name, value in environment.items()]
        guarded = [sys.executable, "-I", "-S", str(SUPERVISOR), str(os.getpid()), str(grace_s), ticket.identity]
        # A session of its own: Ctrl-C in the terminal reaches us, and we end the server.
        self.supervisor = subprocess.Popen(
            [*guarded, "env", *variables, str(installation.binary), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def alive(self) -> bool:
        """Whether it runs."""
        return self.supervisor.poll() is None

    def memory_bytes(self) -> int:
        """Memory of the server and its backend processes, see `memory.used_bytes`."""
        return memory.used_bytes(self.supervisor.pid)

    def has_crashed(self, within_s: float) -> bool:
        """Whether a signal has ended it, or does within some seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.supervisor.wait(within_s)
        return (self.supervisor.returncode or 0) > 128

    def how_it_ended(self) -> str:
        """The exit status or the signal, in words."""
        status = self.supervisor.returncode
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(256 - status).name}"
        return f"exit status {status}"

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """Note the folder that the first model brings, for as long as the block lasts."""
        before = leftovers.environments()
        try:
            yield
        finally:
            if not self._environments:
                self._environments = leftovers.environments() - before

    def close(self) -> None:
        """End the server and its backend processes, and remove what it leaves, also where a signal asks for the end now."""
        try:
            self._end()
        finally:
            self._end()
            self._remove()

    def _end(self) -> None:
        """End the supervisor, and by it the server; at once where it has ended."""
        self.supervisor.terminate()
        try:
            self.supervisor.wait(self.grace_s + 10)
        except subprocess.TimeoutExpired:
            self.supervisor.kill()  # the kernel then kills the server, whose backends notice
            self.supervisor.wait()

    def _remove(self) -> None:
        """Remove what an ended server leaves."""
        leftovers.end(self.identity)  # where the supervisor was killed
        if len(self._environments) == 1:  # of several, nobody knows which is another server's
            with contextlib.suppress(OSError):  # gone
                self._environments.pop().rmdir()
        leftovers.remove_environments()
