"""How fast engines are beside each other in this process, without a server: they take turns, so that whatever else the
machine does hits all of them alike."""

import time
from collections.abc import Mapping, Sequence

import numpy as np

from optkit.engines.candidate import Feed
from optkit.engines.registry import Engine

ROUNDS = 24
"""Turns of each engine, at least."""


def latency_ms(asked: Mapping[str, tuple[Engine, Sequence[Feed]]], seconds: float) -> dict[str, float]:
    """Return the latency of each engine in ms, the lower quartile: on a busy machine the slow half is what others did.

    Args:
        asked: each engine by name, with its requests, as many for all; each request is asked once at least.
        seconds: how long to measure each engine, about.
    """
    times: dict[str, list[float]] = {name: [] for name in asked}
    for engine, feeds in asked.values():  # the first request of a shape compiles it
        for feed in feeds:
            engine.infer(feed)
    count, turn, start = min(len(feeds) for _, feeds in asked.values()), 0, time.perf_counter()
    while turn < max(count, ROUNDS) or time.perf_counter() - start < seconds * len(asked):
        for name, (engine, feeds) in asked.items():
            begin = time.perf_counter()
            engine.infer(feeds[turn % count])
            times[name].append((time.perf_counter() - begin) * 1e3)
        turn += 1
    return {name: float(np.percentile(own, 25)) for name, own in times.items()}
