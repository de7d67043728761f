"""Load on a served model, mostly by MLPerf's own load generator (`mlcommons-loadgen`).

Its scenarios are those of the MLPerf Inference rules: SingleStream, one request at a time; MultiStream, several examples at
a time; Offline, everything at once; and Server, requests at random times (a Poisson process), whose latency must stay below
a bound. Beside them there is the closed loop of several clients.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from optkit.benchmark.client_pool import EXTENSIONS, ClientPool
from optkit.benchmark.load_run import Answered, LoadRun
from optkit.benchmark.measurement import CLOSED_LOOP, OFFLINE, SERVER, Reading
from optkit.core import temporary
from optkit.core.errors import MachineError
from optkit.tasks.base import Feed
from optkit.tasks.collate import Collator

if TYPE_CHECKING:
    from datasets import Dataset

LEAST_QUERIES = 500
"""Least queries of Server. MLPerf grants a 99th percentile with 459 if none is over the bound, else for more."""
OFFLINE_BATCH = 32
STREAMS = 8
"""Examples of one query of MultiStream."""
RATES = (0.25, 0.4, 0.55, 0.7, 0.8, 0.9, 1.0, 1.1)
"""Rates that the Server scenario tries, over the rate that Offline reached."""
_HALVINGS = 3
_DROPPED_S = 1e-3  # for each query after a failure: the load generator goes on to its time, and keeps a record of each
_SUMMARY = {
    "p50": r"50\.00 percentile latency \(ns\) +: (\d+)",
    "p90": r"90\.00 percentile latency \(ns\) +: (\d+)",
    "p99": r"99\.00 percentile latency \(ns\) +: (\d+)",
}


class _HasReading(Protocol):
    @property
    def reading(self) -> Reading: ...


Measured = TypeVar("Measured", bound=_HasReading)


class Samples:
    """Real examples as the load generator numbers them."""

    def __init__(self, features: "Dataset", collator: Collator, count: int = 256, seed: int = 0) -> None:
        drawn = np.random.default_rng(seed).choice(len(features), count, replace=len(features) < count)
        columns = features.select_columns(list(collator.names))[drawn.tolist()]
        self.columns: dict[str, list[list[int]]] = {name: columns[name] for name in collator.names}
        self.collator = collator
        self.alone = [self.feed([index]) for index in range(count)]
        """Requests of one example each."""

    def __len__(self) -> int:
        return len(self.alone)

    def feed(self, indices: Sequence[int]) -> Feed:
        """Several examples as one request."""
        return self.collator.feed({name: [rows[index] for index in indices] for name, rows in self.columns.items()})

    def length(self, index: int) -> int:
        """The length of an example, in tokens."""
        return len(self.columns["input_ids"][index])


def single_stream(pool: ClientPool, samples: Samples, seconds: float) -> Reading:
    """One request after the other."""
    return _run(pool, samples, "SingleStream", seconds, 1)


def multi_stream(pool: ClientPool, samples: Samples, seconds: float) -> Reading:
    """Requests of `STREAMS` examples, one after the other."""
    return _run(pool, samples, "MultiStream", seconds, STREAMS, multi_stream_samples_per_query=STREAMS)


def offline(pool: ClientPool, samples: Samples, seconds: float, expected_rate: float) -> Reading:
    """All examples at once, in requests of `OFFLINE_BATCH` of near-equal length."""
    return _run(pool, samples, OFFLINE, seconds, OFFLINE_BATCH, offline_expected_qps=max(1.0, expected_rate))


def server(pool: ClientPool, samples: Samples, seconds: float, rate: float, p99_ms: float) -> Reading:
    """Requests of one example at random times, `rate` a second on average."""
    bound = {"server_target_qps": rate, "server_target_latency_ns": round(p99_ms * 1e6)}
    least = {"server_target_latency_percentile": 0.99, "min_query_count": LEAST_QUERIES}
    return _run(pool, samples, SERVER, seconds, 1, **bound, **least)


def closed_loop(pool: ClientPool, samples: Samples, seconds: float, extensions: int = EXTENSIONS) -> Reading:
    """Every client of the pool sends its next request when the last is answered; valid where that became stable."""
    steady = pool.closed_loop(samples.alone, seconds, extensions)
    p50, p90, p99 = (round(float(value), 3) for value in np.percentile(steady.latencies_ms, [50, 90, 99]))
    return Reading(CLOSED_LOOP, round(steady.rate, 2), p50, p90, p99, steady.stable)


def rising(run: Callable[[float], Measured], offline_rate: float) -> Iterator[Measured]:
    """Server at a rising rate until the bound breaks; where already the first breaks it, at a falling one until it holds.

    Args:
        run: measures at a rate of requests per second.
        offline_rate: examples per second that the model reaches when all come at once.

    Yields:
        Every run; the figure is the highest rate of a valid one.
    """
    for number, share in enumerate(RATES):
        yield (measured := run(share * offline_rate))
        if measured.reading.valid:
            continue
        if number == 0:
            yield from _falling(run, share * offline_rate)
        return


def _falling(run: Callable[[float], Measured], rate: float) -> Iterator[Measured]:
    for halvings in range(1, _HALVINGS + 1):
        yield (measured := run(rate / 2**halvings))
        if measured.reading.valid:
            return


def _run(pool: ClientPool, samples: Samples, scenario: str, seconds: float, batch: int, **settings: float) -> Reading:
    """One run of the load generator."""
    lg = _loadgen()
    wanted = lg.TestSettings()
    wanted.scenario, wanted.mode = getattr(lg.TestScenario, scenario), lg.TestMode.PerformanceOnly
    wanted.min_duration_ms, wanted.min_query_count = round(seconds * 1e3), 1
    for name, value in settings.items():
        setattr(wanted, name, value)

    def ask(queries: Sequence[Any], answered: Answered) -> None:
        ordered = sorted(queries, key=lambda query: samples.length(query.index)) if batch > 1 else queries
        for first in range(0, len(ordered), batch):
            if pool.failure is not None:
                time.sleep(_DROPPED_S)
                answered([query.id for query in ordered[first:]])
                break
            part = ordered[first : first + batch]
            feed = samples.alone[part[0].index] if batch == 1 else samples.feed([query.index for query in part])
            pool.ask(feed, partial(answered, [query.id for query in part]))

    with temporary.folder("optkit-load") as folder:
        LoadRun(lg, ask, len(samples)).run(wanted, folder)
        pool.check()
        return read((folder / "mlperf_log_summary.txt").read_text(), scenario, settings.get("server_target_qps"))


def read(summary: str, scenario: str, target_rate: float | None = None) -> Reading:
    """The load generator's own summary.

    Raises:
        MachineError: it is not one.
    """
    found = {name: re.search(pattern, summary) for name, pattern in _SUMMARY.items()}
    rate = re.search(r"(?:Completed samples per second +|Samples per second|QPS w/o loadgen overhead +): ([\d.]+)", summary)
    mean = re.search(r"Mean latency \(ns\) +: (\d+)", summary)
    valid = re.search(r"Result is : (\w+)", summary)
    if not all(found.values()) or valid is None or mean is None:
        raise MachineError(f"load generator: no summary of {scenario}; it says: {summary[-300:]!r}. Run it longer")
    percentiles = {f"{name}_ms": int(match[1]) / 1e6 for name, match in found.items() if match}
    per_second = float(rate[1]) if rate else STREAMS * 1e9 / int(mean[1])
    return Reading(scenario, per_second, **percentiles, valid=valid[1] == "VALID", target_rate=target_rate)


def require() -> None:
    """Raise `MachineError` where the load generator is not installed."""
    _loadgen()


def _loadgen() -> Any:
    try:
        import mlperf_loadgen
    except ModuleNotFoundError as error:
        raise MachineError("load: mlcommons-loadgen is not installed. Run: pip install mlcommons-loadgen") from error
    return mlperf_loadgen
