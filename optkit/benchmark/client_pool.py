"""Clients that ask a model at the same time, each on a thread and a connection of its own that stay open between runs."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from optkit.serving.client import Client
from optkit.serving.client_threads import ClientThreads
from optkit.tasks.base import Feed

WINDOWS = 4
"""A closed loop is cut into so many parts; the first is warm-up, the others have to agree."""
AGREED = 0.1
"""How far the throughput of a window may be from that of the others together."""
EXTENSIONS = 2
_LEAST = 20
"""Requests beside each client's first, without which windows say nothing."""


@dataclass(frozen=True)
class Steady:
    """What a closed loop showed, its warm-up left out."""

    latencies_ms: np.ndarray
    """Latency of each request, [requests]."""
    rate: float
    """Requests per second."""
    stable: bool
    """Whether the windows agreed."""


class ClientPool:
    """`clients` threads that ask. An error of the server ends the work and is kept.

    Args:
        client: of the model.
        clients: how many requests may be on their way at the same time.
    """

    def __init__(self, client: Client, clients: int) -> None:
        self.client = client
        self.clients = clients
        self.failure: BaseException | None = None
        self._threads = ClientThreads(client, clients)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.failure = self.failure or error
        self._threads.__exit__(kind, error, trace)

    def ask(self, feed: Feed, done: Callable[[], None]) -> None:
        """Send a request as soon as a client is free, and call `done` when it is answered, or will never be."""
        self._threads.submit(self._ask, feed).add_done_callback(lambda request: done())

    def _ask(self, feed: Feed) -> None:
        try:
            if self.failure is None:
                self.client.infer(feed)
        except Exception as error:  # kept for `check`, which raises it in the caller's thread
            self.failure = self.failure or error

    def check(self) -> None:
        """Raise the first error of a request.

        Raises:
            InputError, MachineError: as `Client.infer` does.
        """
        if self.failure is not None:
            raise self.failure

    def warm(self, feeds: Sequence[Feed], seconds: float) -> None:
        """Have every client open its connection and the server see the shapes."""
        self._loop(feeds, time.perf_counter() + seconds, [])
        self.check()

    def closed_loop(self, feeds: Sequence[Feed], seconds: float, extensions: int = EXTENSIONS) -> Steady:
        """Every client sends its next request when the last is answered; goes on until stable.

        Args:
            feeds: what is asked, in turn.
            seconds: how long to measure, warm-up included.
            extensions: how often to go on for as long again, at most.

        Raises:
            InputError, MachineError: as `Client.infer` does.
        """
        ends: list[tuple[float, float]] = []  # when each was answered (s), and after how many ms
        for extension in range(1 + extensions):
            self._loop(feeds, time.perf_counter() + seconds, ends)
            self.check()
            steady = _steady(ends, extension, self.clients)
            if steady.stable:
                break
        return steady

    def _loop(self, feeds: Sequence[Feed], deadline: float, ends: list[tuple[float, float]]) -> None:
        wait([self._threads.submit(self._one_client, feeds, first, deadline, ends) for first in range(self.clients)])

    def _one_client(self, feeds: Sequence[Feed], number: int, deadline: float, ends: list[tuple[float, float]]) -> None:
        now = 0.0
        while self.failure is None and now < deadline:
            start = time.perf_counter()
            self._ask(feeds[number % len(feeds)])
            now = time.perf_counter()
            if self.failure is None:
                ends.append((now, (now - start) * 1e3))
            number += self.clients


def _steady(ends: Sequence[tuple[float, float]], extension: int, clients: int) -> Steady:
    """The last three of four windows; of a loop that went on, the first runs are warm-up too."""
    times, latencies = np.array(sorted(ends)).T
    if len(times) < clients + _LEAST:
        return Steady(latencies, 1e3 * clients / float(latencies.mean()), stable=False)
    start = times[0] + (times[-1] - times[0]) * extension / (extension + 1)
    bounds = np.linspace(start, times[-1], WINDOWS + 1)
    counts = np.histogram(times, bounds)[0][1:]
    kept = times > bounds[1]
    rate = float(counts.sum() / max(bounds[-1] - bounds[1], 1e-9))
    stable = bool(np.abs(counts - counts.mean()).max() <= max(AGREED * counts.mean(), 1))
    return Steady(latencies[kept], rate, stable)
