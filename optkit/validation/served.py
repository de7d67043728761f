"""Engines on a real Triton server: every example scored through it, and its speed measured."""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from optkit.serving import repository
from optkit.serving.client import Client
from optkit.serving.config import ModelConfig
from optkit.serving.server import Server
from optkit.store import read_json
from optkit.tasks.base import Task
from optkit.tasks.batches import Collator, run
from optkit.validation import performance

BATCH_SIZE = 32


@dataclass(frozen=True)
class Served:
    """What the server answered."""

    logits: dict[str, list[np.ndarray]]
    """{model: one array per feature}; of the models that were asked to be scored."""
    performance: dict[str, dict[int, dict[str, float]]]
    """{model: {batch size: {p50, p95, p99 (ms), throughput}}}"""
    configs: dict[str, ModelConfig]
    """What the server was told of each model."""
    version: str
    """The server that answered."""


def through_server(
    engines: Mapping[str, Path],
    scored: Sequence[str],
    features: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    max_sequence: int,
    logs: Path,
    seconds: float,
) -> Served:
    """Serve engines side by side on one scratch server, score some of them, and measure all of them in turn.

    Args:
        engines: engine folders by the model name to serve them under.
        scored: the models to send every feature to.
        features: of the dev split.
        tokenizer: which made the features.
        task: whose logits they are.
        max_sequence: longest request in tokens that the models can take.
        logs: folder for the server's log.
        seconds: how long each model is measured at each batch size.

    Raises:
        MachineError: the server cannot be started, dies, stalls, or answers with something else.
    """
    collator = Collator(tokenizer, task.max_length)
    with tempfile.TemporaryDirectory(dir=logs.parent, prefix=".scratch-repository-") as scratch, ExitStack() as stack:
        configs = {name: model_config(name, engine, tokenizer, task, max_sequence) for name, engine in engines.items()}
        for name, engine in engines.items():
            repository.place(Path(scratch), engine, configs[name], link=True)
        server = stack.enter_context(Server(Path(scratch), logs, models=engines))
        clients = {name: stack.enter_context(Client(server.url, name)) for name in engines}
        logits = {name: run(clients[name].infer, features, BATCH_SIZE, collator) for name in scored}
        feeds = {size: performance.requests(features, collator, size) for size in performance.BATCH_SIZES}
        return Served(logits, performance.measure(clients, feeds, seconds), configs, f"tritonserver {server.version()}")


def model_config(
    name: str, engine: Path, tokenizer: PreTrainedTokenizerBase, task: Task, max_sequence: int
) -> ModelConfig:
    """What the server has to know of an engine."""
    return ModelConfig(
        name=name,
        inputs=tuple(read_json(engine / "engine.json")["inputs"]),
        logits=(len(task.labels),) if task.head == "classification" else (-1, 2),
        max_batch_size=64,
        max_sequence=max_sequence,
        pad_id=tokenizer.pad_token_id,
        vocab_size=len(tokenizer),
    )
