"""Models on a scratch server, and one measurement of one of them under load."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optkit.benchmark.client_pool import ClientPool
from optkit.benchmark.measurement import ALONE, Measurement, Reading
from optkit.benchmark.scenarios import Samples
from optkit.core import temporary
from optkit.serving import repository
from optkit.serving.client import Client
from optkit.serving.config import ModelConfig
from optkit.serving.server import Server

log = logging.getLogger(__name__)
QUEUE_DELAY_US = 1000
"""How long the server holds a request back for others to share its batch, where batching is on."""
WARM_S = 0.3
"""How long a model is asked before each measurement."""


@dataclass(frozen=True)
class Model:
    """An engine as it is served."""

    recipe: str
    precision: str
    engine: Path
    config: ModelConfig

    def batching(self) -> "Model":
        """Return the model under another name, with requests that wait for each other to share a batch."""
        config = replace(self.config, name=f"{self.config.name}.batching", queue_delay_us=QUEUE_DELAY_US)
        return replace(self, config=config)


@contextmanager
def scratch_server(models: Sequence[Model], logs: Path) -> Iterator[Server]:
    """A server whose repository holds the models; none is loaded yet.

    Args:
        models: of distinct names.
        logs: folder for the server's log.

    Raises:
        MachineError: the server cannot be started.
    """
    logs.parent.mkdir(parents=True, exist_ok=True)
    with temporary.folder(".scratch-repository", logs.parent) as scratch:
        for model in models:
            repository.place(scratch, model.engine, model.config, link=True)
        with Server(scratch, logs) as server:
            yield server


@contextmanager
def loaded(server: Server, *models: Model) -> Iterator[None]:
    """The models are loaded for as long as the block lasts; a server that is gone does not hide what ended it."""
    for model in models:
        server.load(model.config.name)
    yield
    for model in models:
        server.unload(model.config.name)


@dataclass(frozen=True)
class Bench:
    """A server, and what its models are asked."""

    server: Server
    samples: Samples

    def line(
        self, model: Model, clients: int, run: Callable[[ClientPool, Samples], Reading], others: str = ALONE
    ) -> Measurement:
        """One measurement of a model that is loaded.

        Args:
            model: which.
            clients: how many requests may be on their way at the same time.
            run: the scenario.
            others: what other models do meanwhile.
        """
        with Client(self.server.url, model.config.name) as client, ClientPool(client, clients) as pool:
            pool.warm(self.samples.alone, WARM_S)
            before = client.statistics()
            reading = run(pool, self.samples)
            found = counted(before, client.statistics())
        log.info(
            "%s, %s, %d clients: %.0f/s, p99 %.1f ms",
            model.config.name, reading.scenario, clients, reading.rate, reading.p99_ms,
        )  # fmt: skip
        memory_mb = round(self.server.memory_bytes() / 1e6, 1)
        batching = model.config.queue_delay_us is not None
        return Measurement(
            model.recipe, model.precision, batching, clients, reading, **found, memory_mb=memory_mb, others=others
        )


def counted(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
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
