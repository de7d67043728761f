"""The server's command line: sockets of this user alone, and nothing that costs time at the start."""

import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from optkit.core.errors import MachineError
from optkit.serving import slots
from optkit.serving.ticket import Ticket

ADDRESS = "127.0.0.1"
_GRPC_NUMBER = 1
"""Triton appends a port to any address, also to the path of a socket."""
CONTROL = "model-repository,shared-memory,statistics,trace,logging"


class Listeners(NamedTuple):
    """What a server is reached by."""

    http: socket.socket
    metrics: socket.socket
    http_port: int
    metrics_port: int
    grpc_port: int | None
    """Port on which Triton itself listens, if it was asked for."""


@contextmanager
def listen(http_port: int | None, grpc: bool) -> Iterator[Listeners]:
    """Listen on the given port for HTTP and on free ones for the rest: the next two, as Triton has them, where free.

    Args:
        http_port: a free one if None.
        grpc: whether there is to be a port for gRPC.

    Raises:
        MachineError: the given port is taken.
    """
    with ExitStack() as stack:
        http, metrics = (stack.enter_context(socket.socket()) for _ in range(2))
        try:
            # As the server does; a port that merely lingers after its last owner is free.
            http.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            http.bind((ADDRESS, http_port or 0))
            http.listen()
        except (OSError, OverflowError) as error:
            raise MachineError(
                f"Triton server: port {http_port} on {ADDRESS} cannot be used: {error}. Stop what listens there, or "
                "choose another port"
            ) from error
        port = http.getsockname()[1]
        _bind(metrics, port + 2)
        metrics.listen()
        yield Listeners(http, metrics, port, metrics.getsockname()[1], _free(port + 1) if grpc else None)


def _free(preferred: int) -> int:
    """Return a port that is free, the preferred one if it is."""
    with socket.socket() as probe:
        _bind(probe, preferred)
        return probe.getsockname()[1]


def _bind(listener: socket.socket, preferred: int) -> None:
    """Take a port, or any other one where it is taken."""
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ADDRESS, preferred))
    except (OSError, OverflowError):
        listener.bind((ADDRESS, 0))


def grpc_socket(folder: Path) -> str:
    """Address of Triton's gRPC in such a folder."""
    return f"unix:{folder}/grpc:{_GRPC_NUMBER}"


def arguments(
    ticket: Ticket,
    repository: Path,
    backends: Path,
    grpc_port: int | None,
    http_threads: int,
    deadline_s: float,
    grace_s: float,
) -> list[str]:
    """Options of `tritonserver`.

    Args:
        ticket: names the server and its shared memory, and where its sockets are.
        repository: the model repository.
        backends: folder of backends.
        grpc_port: where to listen for gRPC of everybody; only on a socket if None.
        http_threads: threads that read and write HTTP requests.
        deadline_s: seconds for a backend process to load its model.
        grace_s: seconds for requests in flight when the server is ended.
    """
    return [
        f"--id={ticket.identity}",
        f"--model-repository={repository}",
        "--model-control-mode=explicit",
        # Our configurations are complete; completing them would start every backend process twice.
        "--disable-auto-complete-config",
        f"--backend-directory={backends}",
        f"--backend-config=python,shm-region-prefix-name={ticket.identity}-",
        f"--backend-config=python,stub-timeout-seconds={max(1, int(deadline_s))}",
        f"--http-address=unix:{ticket.folder}/http",
        f"--http-thread-count={http_threads}",
        f"--http-header-forward-pattern={slots.HEADER}",
        f"--metrics-address=unix:{ticket.folder}/metrics",
        *_grpc_arguments(ticket, grpc_port),
        # The backends take their inputs from ordinary memory, and talk to a GPU themselves.
        "--pinned-memory-pool-byte-size=0",
        "--allow-gpu-metrics=false",
        f"--exit-timeout-secs={max(1, int(grace_s))}",
    ]


def _grpc_arguments(ticket: Ticket, port: int | None) -> list[str]:
    """Options for gRPC on a socket, or on a port without the protocols that control the server.

    Triton opens those to a header that its command line names, where other users can read it. This one has capital letters,
    which no header of HTTP/2 can have: nobody controls the server through that port.
    """
    if port is None:
        return [f"--grpc-address=unix:{ticket.folder}/grpc", f"--grpc-port={_GRPC_NUMBER}"]
    nobody = f"NOBODY={secrets.token_urlsafe(16)}"
    return [f"--grpc-address={ADDRESS}", f"--grpc-port={port}", f"--grpc-restricted-protocol={CONTROL}:{nobody}"]


def cache_arguments(caches: Path, cache_mb: int) -> list[str]:
    """Options for a response cache, which all models that want one share.

    Args:
        caches: folder of cache implementations.
        cache_mb: memory for answers, 2**20 bytes each; no cache if 0.
    """
    if not cache_mb:
        return []
    return [f"--cache-directory={caches}", f"--cache-config=local,size={cache_mb * 2**20}"]
