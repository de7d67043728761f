"""Measurements under load as lines: written as CSV, kept as JSON, and what they say of each engine.

Reports read this, so it brings nothing heavier than NumPy.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any, Self

import numpy as np

from optkit.core.errors import InputError
from optkit.core.json_door import checked

CLOSED_LOOP, SERVER, OFFLINE = "closed loop", "Server", "Offline"
COMPARED = 16
"""Clients at which batching by the server is compared with none."""
ALONE, IDLE, BUSY = "", "idle", "busy"
"""What the other models on the server do: there are none, nobody asks them, or all are asked at the same time."""
_RESAMPLES = 1000


@dataclass(frozen=True)
class Reading:
    """One run under load. Latencies are those of queries, from the moment one was due."""

    scenario: str
    """MLPerf's scenario, or `closed loop`: every client sends its next request when the last is answered."""
    rate: float
    """Examples per second."""
    p50_ms: float
    p90_ms: float
    p99_ms: float
    valid: bool
    """Whether the run is valid by MLPerf's rules: enough queries, and for Server the 99th percentile below the bound with
    statistical confidence. For a closed loop, whether its throughput was stable."""
    target_rate: float | None = None
    """Queries per second that Server was to send."""


@dataclass(frozen=True)
class Measurement:
    """One measurement. The server's own figures are of the requests of this measurement."""

    recipe: str
    precision: str
    batching: bool
    """Whether the server makes batches of several requests."""
    clients: int
    reading: Reading
    requests: int
    mean_batch: float
    """Examples that the server ran at a time."""
    queue_ms: float
    """Mean time of a request in the server's queue."""
    compute_ms: float
    """Mean time of a request in the engine."""
    memory_mb: float
    """Memory of the server and all its backend processes, after the measurement."""
    others: str = ALONE
    """What other models did on the server meanwhile."""

    def as_dict(self) -> dict[str, Any]:
        """Flat, as a line of CSV has it."""
        own = vars(self) | {"batching": "on" if self.batching else "off"}
        reading = own.pop("reading")
        return {**own, **vars(reading)}

    @classmethod
    def of(cls, content: Mapping[str, Any], path: Path) -> Self:
        """Return the measurement behind what `as_dict` gave.

        Args:
            content: the line.
            path: of the file it was read from.

        Raises:
            InputError: it is another one's.
        """
        names = {field.name for field in fields(Reading)}
        reading = {name: value for name, value in content.items() if name in names}
        own = {name: value for name, value in content.items() if name not in names}
        own |= {"batching": content.get("batching") == "on", "reading": reading}
        fix = "measure again: optkit load --again"
        checked(own, cls, path, fix)
        if not all(0 < reading[name] < math.inf for name in ("p50_ms", "p90_ms", "p99_ms")):
            raise InputError(f"{path}: a latency is no positive number; {fix}")
        return cls(**own | {"reading": Reading(**reading)})


def by_engine(lines: Sequence[Measurement]) -> dict[str, list[Measurement]]:
    """The lines of each engine, by its name."""
    names = dict.fromkeys(f"{line.recipe} {line.precision}" for line in lines)
    return {name: [line for line in lines if f"{line.recipe} {line.precision}" == name] for name in names}


def summary(lines: Sequence[Measurement], p99_ms: float) -> dict[str, Any]:
    """What the measurements of one engine say, as result rows carry it. Keys `off` and `on` are batching by the server.

    Args:
        lines: of one engine.
        p99_ms: bound of the Server scenario.

    Returns:
        `p99_ms`; `curves` {off, on: [{clients, rate, p50_ms, p99_ms}]}; `held` {off, on: the fastest Server run within the
        bound, or None}; `nearest`, the Server run with the lowest 99th percentile, if none was held; `queue` {off, on:
        [{rate, per_compute}] of the Server runs within the bound: the time in the queue over that in the engine}; `offline`
        {off, on: examples/s}; `memory_mb` {off, on}; and `batching_gain`, {clients, ratio, low, high, rounds} or None.
    """
    ways = {"off": [line for line in lines if not line.batching], "on": [line for line in lines if line.batching]}
    tried = [line.reading for line in lines if line.reading.scenario == SERVER]
    held = {way: _fastest(own) for way, own in ways.items()}
    nearest = min(tried, key=lambda reading: reading.p99_ms, default=None)
    return {
        "p99_ms": p99_ms,
        "curves": {way: list(_curve(own)) for way, own in ways.items()},
        "held": {way: _point(reading) for way, reading in held.items()},
        "nearest": None if any(held.values()) else _point(nearest),
        "queue": {way: list(_queue(own)) for way, own in ways.items()},
        "offline": {way: _offline(own) for way, own in ways.items()},
        "memory_mb": {way: _memory_mb(own) for way, own in ways.items()},
        "batching_gain": _gain(ways["off"], ways["on"]),
    }


def sentences(name: str, found: Mapping[str, Any]) -> list[str]:
    """A summary in words.

    Args:
        name: of the engine.
        found: its `summary`.
    """
    said = [f"{name}: {_held(found)}"]
    if gain := found["batching_gain"]:
        said.append(
            f"{name}: batching by the server brings {gain['ratio']:.2f} times the throughput at {gain['clients']} clients "
            f"(95 % interval {gain['low']:.2f} to {gain['high']:.2f}, {gain['rounds']} rounds in turn)"
        )
    return said


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Median of the ratios of measurements made in turn, with its 95 % interval by the bootstrap over the rounds."""
    ratios = np.asarray(ours) / np.asarray(theirs)
    drawn = np.random.default_rng(0).choice(ratios, (_RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return round(float(np.median(ratios)), 3), round(float(low), 3), round(float(high), 3)


def _curve(lines: Sequence[Measurement]) -> Iterator[dict[str, Any]]:
    loops = [line for line in lines if line.reading.scenario == CLOSED_LOOP]
    for clients in sorted({line.clients for line in loops}):
        own = [line.reading for line in loops if line.clients == clients]
        values = {name: median(getattr(reading, name) for reading in own) for name in ("rate", "p50_ms", "p99_ms")}
        yield {"clients": clients, **{name: round(value, 3) for name, value in values.items()}}


def _fastest(lines: Sequence[Measurement]) -> Reading | None:
    held = [line.reading for line in lines if line.reading.scenario == SERVER and line.reading.valid]
    return max(held, key=lambda reading: reading.rate, default=None)


def _queue(lines: Sequence[Measurement]) -> Iterator[dict[str, float]]:
    held = [line for line in lines if line.reading.scenario == SERVER and line.reading.valid and line.compute_ms > 0]
    for line in sorted(held, key=lambda line: line.reading.rate):
        yield {"rate": round(line.reading.rate, 2), "per_compute": round(line.queue_ms / line.compute_ms, 4)}


def _point(reading: Reading | None) -> dict[str, float] | None:
    return None if reading is None else {"rate": round(reading.rate, 2), "p99_ms": round(reading.p99_ms, 3)}


def _offline(lines: Sequence[Measurement]) -> float | None:
    return next((round(line.reading.rate, 2) for line in lines if line.reading.scenario == OFFLINE), None)


def _memory_mb(lines: Sequence[Measurement]) -> float | None:
    return max((line.memory_mb for line in lines if line.others == ALONE), default=None)


def _gain(without: Sequence[Measurement], batching: Sequence[Measurement]) -> dict[str, Any] | None:
    """What batching by the server brings, from the rounds in which both ways took turns."""
    rates = [[line.reading.rate for line in lines if _is_compared(line)] for lines in (batching, without)]
    rounds = min(map(len, rates))
    if not rounds:
        return None
    ratio, low, high = median_ratio(*(own[:rounds] for own in rates))
    return {"clients": COMPARED, "ratio": ratio, "low": low, "high": high, "rounds": rounds}


def _is_compared(line: Measurement) -> bool:
    return (line.reading.scenario, line.clients) == (CLOSED_LOOP, COMPARED)


def _held(found: Mapping[str, Any]) -> str:
    held = {way: point for way, point in found["held"].items() if point}
    if held:
        way = max(held, key=lambda way: held[way]["rate"])
        batching = "with" if way == "on" else "without"
        return f"{held[way]['rate']:.0f}/s are held with a p99 of {held[way]['p99_ms']:.1f} ms ({batching} batching)"
    if not (nearest := found["nearest"]):
        return "no rate was tried"
    return (
        f"no rate holds a p99 of {found['p99_ms']:g} ms; the best was {nearest['p99_ms']:.1f} ms at {nearest['rate']:.0f}/s"
    )
