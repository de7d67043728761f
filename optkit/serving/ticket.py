"""Tickets of running servers: a file of this user alone that says how a server's models are controlled.

`<cache folder>/servers/<host>-<port>.json`, mode 0600, locked by the server's process for as long as that lives.
"""

import contextlib
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from optkit.core.cache_folder import cache_folder
from optkit.core.errors import InputError
from optkit.core.json_door import read_json

HEADER = "Optkit-Secret"
SOCKETS = "optkit-server"
"""Beginning of the names of folders with Triton's sockets."""
_LOCK = "lock"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Ticket:
    """One server."""

    identity: str
    """Name that the server gives itself."""
    secret: str
    """Value of the header `HEADER`, drawn when the server was started."""
    folder: str
    """Triton's sockets `http` and `metrics`; removed with the ticket."""
    grpc: str | None
    """gRPC address through which models are controlled, if there is one."""


def path(port: int) -> Path:
    """Where the ticket of the server on a port lies."""
    return cache_folder() / "servers" / f"{socket.gethostname()}-{port}.json"


@contextmanager
def held(port: int, ticket: Ticket) -> Iterator[Path]:
    """Yield the ticket's path, for as long as the server lives; what servers that were killed have left is removed.

    Raises:
        OSError: it cannot be written.
    """
    place = path(port)
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _placed(place, ticket):
        try:
            yield place
        finally:
            remove(place)


def _placed(place: Path, ticket: Ticket) -> TextIO:
    """Write a ticket, and return its file, whose lock shows that the server lives."""
    with place.with_name(_LOCK).open("w") as lock:  # nobody sweeps while a ticket takes another one's place
        fcntl.flock(lock, fcntl.LOCK_EX)
        _sweep(place.parent)
        unfinished = place.with_suffix(".unfinished")
        file = os.fdopen(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="ascii")
        fcntl.flock(file, fcntl.LOCK_EX)  # goes with the file when it is renamed
        json.dump(asdict(ticket), file)
        file.flush()
        unfinished.rename(place)
    return file


def read(place: Path) -> Ticket | None:
    """Return a ticket, or None where there is none."""
    try:
        return Ticket(**read_json(place, Ticket))
    except InputError:
        return None


def find(url: str, identity: str) -> Ticket | None:
    """Return the ticket of this user's server on this machine, or None where another one answers.

    Args:
        url: `host:port`.
        identity: what the server that answers there calls itself.
    """
    parts = urlsplit(f"//{url}")
    if parts.hostname not in LOOPBACK or parts.port is None:
        return None
    found = read(path(parts.port))
    return found if found is not None and found.identity == identity else None


def remove(place: Path) -> None:
    """Remove a ticket, and the folder that it names."""
    ticket = read(place)
    place.unlink(missing_ok=True)
    if ticket is not None and Path(ticket.folder).name.startswith(SOCKETS):
        shutil.rmtree(ticket.folder, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what no process holds."""
    for place in folder.iterdir():
        with contextlib.suppress(OSError), place.open("rb") as file:  # held by a server that runs, or gone
            if place.name != _LOCK:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(place)
