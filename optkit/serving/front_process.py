"""The process of the front, from the side of the one that starts it."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

LARGEST_BODY = 16 * 2**20
"""Bytes of a request's body."""
DRAIN = signal.SIGUSR1
"""Asks a front to let requests come to their end, and to begin no others."""
_SOURCE = Path(__file__).parents[2]
_CODE = "import sys; sys.path.append(sys.argv.pop(1)); from optkit.serving.front.listen import main; main(sys.argv[1:])"


def start(ticket: Path, http: socket.socket, metrics: socket.socket, largest: int, log: BinaryIO) -> subprocess.Popen[bytes]:
    """Start the front; it ends by itself when this process is gone.

    Args:
        ticket: of the server.
        http: listens for inference; stays open here, so that another front can go on where this one has died.
        metrics: listens for Prometheus.
        largest: bytes of a request's body.
        log: what it says on standard output and error goes there.
    """
    listeners = http.fileno(), metrics.fileno()
    return subprocess.Popen(
        [sys.executable, "-I", "-c", _CODE, str(_SOURCE), str(os.getpid()), str(ticket), str(largest), *map(str, listeners)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=listeners,
        start_new_session=True,  # Ctrl-C reaches us, and we end the server first
    )
