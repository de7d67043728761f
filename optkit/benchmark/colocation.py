"""Several models on one server: what each loses when the others are merely loaded, and when all are asked at once."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

from optkit.benchmark import scenarios
from optkit.benchmark.measurement import ALONE, BUSY, IDLE, Measurement, by_engine, median_ratio
from optkit.benchmark.scenarios import Samples
from optkit.benchmark.scratch_server import Bench, Model, loaded, scratch_server

CLIENTS = 4
"""How many clients ask each model, in a closed loop."""
ROUNDS = 4
"""Number of rounds in which alone, idle and busy take turns."""


def measure(models: Sequence[Model], samples: Samples, logs: Path, seconds: float) -> Iterator[Measurement]:
    """Each model alone on the server, then with all loaded and it alone asked, then with all asked; in several rounds.

    Args:
        models: of distinct names.
        samples: what all are asked.
        logs: folder for the server's log.
        seconds: of each measurement.

    Raises:
        MachineError: the server cannot be started, dies, stalls, or answers with something else. What was yielded before
            stands.
    """
    run = partial(scenarios.closed_loop, seconds=seconds, extensions=0)  # all of a round take the same time
    # the server ends first, and with it what threads still ask after Ctrl-C
    with ThreadPoolExecutor(len(models)) as threads, scratch_server(models, logs) as server:
        bench = Bench(server, samples)
        for _ in range(ROUNDS):
            for model in models:
                with loaded(server, model):
                    yield bench.line(model, CLIENTS, run, ALONE)
            with loaded(server, *models):
                for model in models:
                    yield bench.line(model, CLIENTS, run, IDLE)
                yield from list(threads.map(lambda model: bench.line(model, CLIENTS, run, BUSY), models))


def sentences(lines: Sequence[Measurement]) -> list[str]:
    """What the others do to each model, a sentence each."""
    engines = by_engine(lines)
    return [f"{name}: {_effect(own, [other for other in engines if other != name])}" for name, own in engines.items()]


def _effect(lines: Sequence[Measurement], others: Sequence[str]) -> str:
    found = {way: [line for line in lines if line.others == way] for way in (ALONE, IDLE, BUSY)}
    p99_ms = {way: median(line.reading.p99_ms for line in own) for way, own in found.items()}
    return (
        f"beside {' and '.join(others)} it keeps {_kept(found, IDLE)} of its throughput while they are merely loaded and "
        f"{_kept(found, BUSY)} while they are asked as much ({CLIENTS} clients each); p99 {p99_ms[ALONE]:.1f} ms alone, "
        f"{p99_ms[IDLE]:.1f} and {p99_ms[BUSY]:.1f} ms so"
    )


def _kept(found: Mapping[str, Sequence[Measurement]], way: str) -> str:
    ratio, low, high = median_ratio(*([line.reading.rate for line in found[name]] for name in (way, ALONE)))
    return f"{ratio:.0%} [{low:.0%}, {high:.0%}]"
