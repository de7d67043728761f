"""The front's process: listens on sockets that it was given, until its parent is gone or ends it.

Started isolated by `optkit.serving.front_process`.
"""

import asyncio
import os
import resource
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from optkit.serving import ticket as tickets
from optkit.serving.front.crowd import MOST, Crowd
from optkit.serving.front.relay import Conversation
from optkit.serving.front.rules import INFERENCE, METRICS, Rules
from optkit.serving.front.upstream import Upstreams
from optkit.serving.front_process import DRAIN
from optkit.serving.slots import FILE, Slots
from optkit.serving.ticket import Ticket

try:
    from uvloop import run
except ImportError:  # the front costs twice as much
    from asyncio import run  # type: ignore[assignment]

SWEEP_S = 0.5
_DESCRIPTORS = 4 * MOST


def main(arguments: Sequence[str]) -> None:
    """Run the front.

    Args:
        arguments: process id of the parent; path of the server's ticket; bytes of a request's body at most; descriptors of
            the sockets that listen for inference and for Prometheus.
    """
    parent, place, largest, http, metrics = arguments
    ticket = tickets.read(Path(place))
    assert ticket is not None
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard), hard)
    )
    run(_listen(ticket, Path(place), int(largest), int(http), int(metrics), int(parent)))


async def _listen(ticket: Ticket, place: Path, largest: int, http: int, metrics: int, parent: int) -> None:
    crowd, folder = Crowd(largest), Path(ticket.folder)
    slots, loop = Slots(folder / FILE), asyncio.get_running_loop()
    connections = []
    for descriptor, everybody, name in ((http, INFERENCE, "http"), (metrics, METRICS, "metrics")):
        rules, upstreams = Rules(everybody, ticket.secret, largest), Upstreams(str(folder / name))
        listener = socket.socket(fileno=descriptor)
        await loop.create_server(partial(Conversation, crowd, slots, rules, upstreams), sock=listener, backlog=MOST)
        connections.append(upstreams)
    loop.add_signal_handler(DRAIN, _drain, connections)
    while os.getppid() == parent:
        await asyncio.sleep(SWEEP_S)
        crowd.sweep()
    tickets.remove(place)  # as the parent cannot any more; the port is still ours


def _drain(connections: list[Upstreams]) -> None:
    for upstreams in connections:
        upstreams.drain()
