"""Engines on a real Triton server: every example scored through it, and its speed measured."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optkit.core import temporary
from optkit.engines.record import read_record
from optkit.evaluation import latency
from optkit.evaluation.invariance import QUEUE_DELAY_US, Probes
from optkit.models import families
from optkit.models.loading import LoadedModel
from optkit.serving import repository
from optkit.serving.client import Client
from optkit.serving.config import ModelConfig
from optkit.serving.server import Server
from optkit.tasks.base import Task
from optkit.tasks.collate import BATCH_SIZE, Collator, random_batches, run

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Served:
    """What the server answered."""

    logits: dict[str, list[np.ndarray]]
    """Logits of the models that were scored, {model: one array per feature}."""
    performance: dict[str, dict[int, dict[str, Any]]]
    """Latency and throughput, {model: {batch size: measurements}}."""
    configs: dict[str, ModelConfig]
    """Configuration of each model on the server."""
    version: str
    """The server that answered."""
    probes: dict[str, dict[str, list[np.ndarray]]]
    """Probes' logits of the models that were scored, {model: {way to ask: one array per probe}}."""
    batches: dict[str, dict[str, int]]
    """Number of `requests` and of the `batches` that the server ran them in, by model, with batching by the server."""


def through_server(
    engines: Mapping[str, Path],
    shapes: Mapping[str, tuple[int, ...] | None],
    scored: Sequence[str],
    features: "Dataset",
    loaded: LoadedModel,
    task: Task,
    max_sequence: int,
    probes: Probes,
    logs: Path,
    seconds: float,
) -> Served:
    """Serve engines side by side on one scratch server, score and probe some of them, and measure all of them in turn.

    Args:
        engines: engine folders by the model name to serve them under.
        shapes: of their logits without the batch, by the same names; None for the task's.
        scored: the models to send every feature to.
        features: of the dev split.
        loaded: the model in PyTorch, whose tokenizer made the features.
        task: whose logits they are.
        max_sequence: longest request in tokens that the models can take.
        probes: asked of the scored models in several ways.
        logs: folder for the server's log.
        seconds: how long each model is measured at each batch size.

    Raises:
        MachineError: the server cannot be started, dies, stalls, or answers with something else.
    """
    collator = Collator.of(task, loaded.tokenizer)
    with temporary.folder(".scratch-repository", logs.parent) as scratch, ExitStack() as stack:
        configs = {
            name: model_config(name, engine, loaded, task, max_sequence, shapes[name]) for name, engine in engines.items()
        }
        for name, engine in engines.items():
            repository.place(scratch, engine, configs[name], link=True)
        server = stack.enter_context(Server(scratch, logs, models=engines))
        clients = {name: stack.enter_context(Client(server.url, name)) for name in engines}
        logits = {
            name: run(clients[name].infer, features, BATCH_SIZE, collator, f"scoring {name} through the server")
            for name in scored
        }
        feeds = {size: random_batches(features, collator, size) for size in latency.BATCH_SIZES}
        speed = latency.measure(clients, feeds, seconds)
        answers = {name: probes.ask(clients[name]) for name in scored}
        batches = {}
        for name in scored:
            repository.place(scratch, engines[name], _sharing(configs[name]), link=True)
            answers[name]["together"], batches[name] = _ask_together(server, _sharing(configs[name]).name, probes)
        return Served(logits, speed, configs, f"tritonserver {server.version()}", answers, batches)


def _sharing(config: ModelConfig) -> ModelConfig:
    """Return the model under another name, with requests that wait for each other to share a batch."""
    return replace(config, name=f"{config.name}.sharing", queue_delay_us=QUEUE_DELAY_US)


def _ask_together(server: Server, model: str, probes: Probes) -> tuple[list[np.ndarray], dict[str, int]]:
    """The probes' logits in batches that the server makes, and how many requests it ran in how many batches."""
    server.load(model)
    with Client(server.url, model) as client:
        answers = probes.ask_together(client)
        done = client.statistics()
    server.unload(model)
    return answers, {"requests": done["inference_count"], "batches": done["execution_count"]}


def model_config(
    name: str,
    engine: Path,
    loaded: LoadedModel,
    task: Task,
    max_sequence: int,
    logits: tuple[int, ...] | None = None,
) -> ModelConfig:
    """What the server has to know of an engine; the logits have the task's shape unless another one is given."""
    types = families.token_types(loaded.model.config)
    return ModelConfig(
        name=name,
        inputs=tuple(read_record(engine)["inputs"]),
        logits=task.logits_shape if logits is None else logits,
        max_batch_size=64,
        max_sequence=max_sequence,
        pad_id=loaded.tokenizer.pad_token_id,
        vocab_size=len(loaded.tokenizer),
        token_types=types if types > 2 else None,
    )
