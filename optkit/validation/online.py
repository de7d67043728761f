"""Online and offline performance of engines on a real server: load scenarios, numbers of clients, batching on and off."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from optkit.validation import load
from optkit.validation.bench import Bench, Model, loaded, scratch_server
from optkit.validation.lines import COMPARED, IDLE, Line
from optkit.validation.load import Samples

CLIENTS = (1, 2, 4, 8, 16, 32, 64)
"""Of the closed loop."""
ROUNDS = 5
"""In which batching and none take turns at `COMPARED` clients."""
_SERVER_CLIENTS, _OFFLINE_CLIENTS = 32, 2
_SWEEP = 0.5
"""Time of a closed loop over that of the other measurements: there are many of them, and they go on until stable."""


def measure(models: Sequence[Model], samples: Samples, logs: Path, seconds: float, p99_ms: float) -> Iterator[Line]:
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


def _alone(bench: Bench, model: Model, seconds: float, p99_ms: float) -> Iterator[Line]:
    """MLPerf's scenarios."""
    yield (first := bench.line(model, 1, partial(load.single_stream, seconds=seconds)))
    yield bench.line(model, 1, partial(load.multi_stream, seconds=seconds))
    offline = partial(load.offline, seconds=seconds, expected_rate=first.reading.rate)
    yield (every := bench.line(model, _OFFLINE_CLIENTS, offline))

    def at(rate: float) -> Line:
        return bench.line(model, _SERVER_CLIENTS, partial(load.server, seconds=seconds, rate=rate, p99_ms=p99_ms))

    yield from load.rising(at, every.reading.rate)


def _in_turn(bench: Bench, pair: Sequence[Model], seconds: float) -> Iterator[Line]:
    """Closed loops of both models in turn, so that a machine that drifts moves both alike; nobody asks the other one."""
    run = partial(load.closed_loop, seconds=_SWEEP * seconds)
    for clients in CLIENTS:
        for _ in range(ROUNDS if clients == COMPARED else 1):
            for model in pair:
                yield bench.line(model, clients, run, IDLE)
