"""The server's command line: loopback addresses, ports that are free, and nothing that costs time at the start."""

import socket
from pathlib import Path
from typing import NamedTuple

from optkit.core.errors import MachineError

ADDRESS = "127.0.0.1"


class Ports(NamedTuple):
    """Ports that a server listens on."""

    http: int
    grpc: int
    metrics: int


def ports(http_port: int | None) -> Ports:
    """The given port for HTTP, checked, and free ones for the rest: the next two, as Triton has them, where they are free.

    Raises:
        MachineError: the given port is taken.
    """
    with socket.socket() as http, socket.socket() as grpc, socket.socket() as metrics:
        try:
            # As the server does; a port that merely lingers after its last owner is free.
            http.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            http.bind((ADDRESS, http_port or 0))
        except (OSError, OverflowError) as error:
            raise MachineError(
                f"Triton server: port {http_port} on {ADDRESS} cannot be used: {error}. Stop what listens there, or "
                "choose another port"
            ) from error
        for number, other in enumerate((grpc, metrics), 1):
            _bind(other, http.getsockname()[1] + number)
        return Ports(*(each.getsockname()[1] for each in (http, grpc, metrics)))


def _bind(listener: socket.socket, preferred: int) -> None:
    """Take a port, or any other one where it is taken."""
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ADDRESS, preferred))
    except (OSError, OverflowError):
        listener.bind((ADDRESS, 0))


def arguments(
    identity: str, repository: Path, backends: Path, ports: Ports, http_threads: int, deadline_s: float, grace_s: float
) -> list[str]:
    """Options of `tritonserver`.

    Args:
        identity: names the server and its shared memory.
        repository: the model repository.
        backends: folder of backends.
        ports: where to listen.
        http_threads: threads that read and write HTTP requests.
        deadline_s: seconds for a backend process to load its model.
        grace_s: seconds for requests in flight when the server is ended.
    """
    return [
        f"--id={identity}",
        f"--model-repository={repository}",
        "--model-control-mode=explicit",
        # Our configurations are complete; completing them would start every backend process twice.
        "--disable-auto-complete-config",
        f"--backend-directory={backends}",
        f"--backend-config=python,shm-region-prefix-name={identity}-",
        f"--backend-config=python,stub-timeout-seconds={max(1, int(deadline_s))}",
        f"--http-address={ADDRESS}",
        f"--http-port={ports.http}",
        f"--http-thread-count={http_threads}",
        f"--grpc-address={ADDRESS}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-address={ADDRESS}",
        f"--metrics-port={ports.metrics}",
        # The backends take their inputs from ordinary memory, and talk to a GPU themselves.
        "--pinned-memory-pool-byte-size=0",
        "--allow-gpu-metrics=false",
        f"--exit-timeout-secs={max(1, int(grace_s))}",
    ]


def cache_arguments(caches: Path, cache_mb: int) -> list[str]:
    """Options for a response cache, which all models that want one share.

    Args:
        caches: folder of cache implementations.
        cache_mb: memory for answers, 2**20 bytes each; no cache if 0.
    """
    if not cache_mb:
        return []
    return [f"--cache-directory={caches}", f"--cache-config=local,size={cache_mb * 2**20}"]
