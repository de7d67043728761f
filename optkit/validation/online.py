"""Online and offline performance of engines on a real server: load scenarios, numbers of clients, batching on and off."""

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from optkit.serving import repository
from optkit.serving.client import Client
from optkit.serving.config import ModelConfig
from optkit.serving.server import Server
from optkit.tasks.base import Task
from optkit.validation import load
from optkit.validation.load import CLOSED_LOOP, Reading, Samples
from optkit.validation.pool import Pool
from optkit.validation.served import model_config

log = logging.getLogger(__name__)
CLIENTS = (1, 4, 16, 64)
_COMPARED = 16
"""Clients at which batching by the server is compared with none."""
QUEUE_DELAY_US = 1000
"""How long the server holds a request back for others to share its batch, where batching is on."""
_SERVER_CLIENTS, _OFFLINE_CLIENTS = 32, 2


@dataclass(frozen=True)
class Line:
    """One measurement, as a line of the CSV file. The server's own figures are of the requests of this measurement."""

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

    def as_dict(self) -> dict[str, Any]:
        """Flat, as a line of CSV has it."""
        own = vars(self) | {"batching": "on" if self.batching else "off"}
        reading = own.pop("reading")
        return {**own, **vars(reading)}


def measure(
    engines: Mapping[str, Path],
    samples: Samples,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    max_sequence: int,
    logs: Path,
    seconds: float,
    p99_ms: float,
) -> Iterator[Line]:
    """Put load on each engine, one loaded at a time, and yield each measurement when it is finished.

    Args:
        engines: {precision: folder}.
        samples: what is asked.
        tokenizer: which made the samples.
        task: whose logits they are.
        max_sequence: longest request in tokens that the models can take.
        logs: folder for the server's log.
        seconds: of each measurement, at least.
        p99_ms: bound of the 99th percentile for the Server scenario.

    Raises:
        MachineError: the server cannot be started, dies, stalls, or answers with something else. What was yielded before
            stands.
    """
    logs.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=logs.parent, prefix=".scratch-repository-") as scratch:
        models = []
        for precision, folder in engines.items():
            config = model_config(precision, folder, tokenizer, task, max_sequence)
            for one in (config, replace(config, name=f"{precision}.batching", queue_delay_us=QUEUE_DELAY_US)):
                repository.place(Path(scratch), folder, one, link=True)
                models.append((precision, one))
        with Server(Path(scratch), logs) as server:
            for precision, config in models:
                server.load(config.name)
                yield from _Bench(server, precision, config, samples, seconds).lines(p99_ms)
                server.unload(config.name)


@dataclass(frozen=True)
class _Bench:
    """One model on the server, alone there."""

    server: Server
    precision: str
    config: ModelConfig
    samples: Samples
    seconds: float

    def lines(self, p99_ms: float) -> Iterator[Line]:
        """Every measurement of the model."""
        run = partial(self._line, 1)
        yield (first := run(load.single_stream))
        yield run(load.multi_stream)
        yield (every := self._line(_OFFLINE_CLIENTS, load.offline, expected_rate=first.reading.rate))
        for clients in CLIENTS:
            yield self._line(clients, load.closed_loop)
        yield from load.rising(
            lambda rate: self._line(_SERVER_CLIENTS, load.server, rate=rate, p99_ms=p99_ms), every.reading.rate
        )

    def _line(self, clients: int, run: Callable[..., Reading], **settings: float) -> Line:
        with Client(self.server.url, self.config.name) as client, Pool(client, clients) as pool:
            pool.warm(self.samples.alone)
            before = client.statistics()
            reading = run(pool, self.samples, self.seconds, **settings)
            counted = _counted(before, client.statistics())
        said = f"{reading.rate:.0f}/s, p99 {reading.p99_ms:.1f} ms"
        log.info("%s, %s, %d clients: %s", self.config.name, reading.scenario, clients, said)
        return Line(self.precision, self.config.queue_delay_us is not None, clients, reading, **counted)


def _counted(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The server's own figures between two looks at its statistics."""

    def more(*path: str) -> float:
        ends = []
        for counts in (after, before):
            for name in path:
                counts = counts[name]
            ends.append(float(counts))  # type: ignore[arg-type]
        return ends[0] - ends[1]

    requests = more("inference_stats", "success", "count")
    per_request = max(requests, 1) * 1e6
    return {
        "requests": round(requests),
        "mean_batch": round(more("inference_count") / max(more("execution_count"), 1), 2),
        "queue_ms": round(more("inference_stats", "queue", "ns") / per_request, 3),
        "compute_ms": round(more("inference_stats", "compute_infer", "ns") / per_request, 3),
    }


def summary(lines: Sequence[Line], p99_ms: float) -> list[str]:
    """What the measurements say of each precision, a sentence each: the highest rate held, and what batching brings."""
    said = []
    for precision in dict.fromkeys(line.precision for line in lines):
        own = [line for line in lines if line.precision == precision]
        said.append(f"{precision}: {_held(own, p99_ms)}")
        loops = {line.batching: line.reading.rate for line in own if _is_compared(line)}
        if len(loops) == 2:
            gain = loops[True] / loops[False]
            said.append(f"{precision}: batching by the server brings {gain:.2f} times the throughput at {_COMPARED} clients")
    return said


def _held(lines: Sequence[Line], p99_ms: float) -> str:
    runs = [line for line in lines if line.reading.scenario == "Server"]
    best = max((line for line in runs if line.reading.valid), key=lambda line: line.reading.rate, default=None)
    if best is not None:
        batching = "with" if best.batching else "without"
        return f"{best.reading.rate:.0f}/s are held with a p99 of {best.reading.p99_ms:.1f} ms ({batching} batching)"
    if not runs:
        return "no rate was tried"
    nearest = min(runs, key=lambda line: line.reading.p99_ms).reading
    return f"no rate holds a p99 of {p99_ms:g} ms; the best was {nearest.p99_ms:.1f} ms at {nearest.rate:.0f}/s"


def _is_compared(line: Line) -> bool:
    return (line.reading.scenario, line.clients) == (CLOSED_LOOP, _COMPARED)
