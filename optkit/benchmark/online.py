"""Online and offline performance of engines on a real server: load scenarios, numbers of clients, batching on and off."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from optkit.benchmark import scenarios
from optkit.benchmark.measurement import COMPARED, IDLE, Measurement
from optkit.benchmark.scenarios import Samples
from optkit.benchmark.scratch_server import Bench, Model, loaded, scratch_server

CLIENTS = (1, 2, 4, 8, 16, 32, 64)
"""How many clients the closed loop is measured with."""
ROUNDS = 5
"""Number of rounds in which batching and none take turns at `COMPARED` clients."""
_SERVER_CLIENTS, _OFFLINE_CLIENTS = 32, 2
_SWEEP = 0.5
"""Ratio of a closed loop's time to that of other measurements: loops are many, and go on until they are stable."""


def measure(models: Sequence[Model], samples: Samples, logs: Path, seconds: float, p99_ms: float) -> Iterator[Measurement]:
    """Put load on each model, alone on the server, and yield each measurement when it is finished.

    Args:
        models: without batching by the server; each is also measured with it.
        samples: what is asked.
        logs: folder for the server's log.
        seconds: of each measurement, at least; half of it for each closed loop.
        p99_ms: bound of the 99th percentile for the Server scenario.

    Raises:
        MachineError: the server cannot be started, dies, stalls, or answers with something else. What was yielded before
            stands.
    """
    pairs = [(model, model.batching()) for model in models]
    with scratch_server([model for pair in pairs for model in pair], logs) as server:
        bench = Bench(server, samples)
        for pair in pairs:
            for model in pair:
                with loaded(server, model):
                    yield from _alone(bench, model, seconds, p99_ms)
            with loaded(server, *pair):
                yield from _in_turn(bench, pair, seconds)


def _alone(bench: Bench, model: Model, seconds: float, p99_ms: float) -> Iterator[Measurement]:
    """MLPerf's scenarios."""
    yield (first := bench.line(model, 1, partial(scenarios.single_stream, seconds=seconds)))
    yield bench.line(model, 1, partial(scenarios.multi_stream, seconds=seconds))
    offline = partial(scenarios.offline, seconds=seconds, expected_rate=first.reading.rate)
    yield (every := bench.line(model, _OFFLINE_CLIENTS, offline))

    def at(rate: float) -> Measurement:
        return bench.line(model, _SERVER_CLIENTS, partial(scenarios.server, seconds=seconds, rate=rate, p99_ms=p99_ms))

    yield from scenarios.rising(at, every.reading.rate)


def _in_turn(bench: Bench, pair: Sequence[Model], seconds: float) -> Iterator[Measurement]:
    """Closed loops of both models in turn, so that a machine that drifts moves both alike; nobody asks the other one."""
    run = partial(scenarios.closed_loop, seconds=_SWEEP * seconds)
    for clients in CLIENTS:
        for _ in range(ROUNDS if clients == COMPARED else 1):
            for model in pair:
                yield bench.line(model, clients, run, IDLE)
