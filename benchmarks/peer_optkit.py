"""optkit's own engines as peers of `peers.py`: called directly, and through its Triton server."""

import atexit
import json
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from peer_kinds import Peer, Settings, megabytes, of_forward

from optkit.engines import registry as engines
from optkit.serving import repository
from optkit.serving.client import Client
from optkit.serving.config import ModelConfig
from optkit.serving.server import Server

MODEL = "engine"


def engine(folder: Path, settings: Settings) -> Peer:
    """An engine in this process."""
    handle, inputs = engines.load(folder, settings.threads), inputs_of(folder)
    return of_forward(lambda ids, mask: handle.infer(feed(inputs, ids, mask)), settings, megabytes(folder), told(folder))


def served(folder: Path, settings: Settings) -> Peer:
    """An engine behind a Triton server of its own on this machine, asked in tokens by HTTP; it ends with this process."""
    stack, inputs = ExitStack(), inputs_of(folder)
    atexit.register(stack.close)
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    shape = engines.load(folder, 1).infer(feed(inputs, *np.ones((2, 1, 2), np.int64))).shape[1:]
    config = ModelConfig(MODEL, inputs, shape, threads=settings.threads)
    repository.place(scratch / "models", folder, config, link=True)
    server = stack.enter_context(Server(scratch / "models", scratch / "logs", [MODEL]))
    client = stack.enter_context(Client(server.url, MODEL))
    return of_forward(lambda ids, mask: client.infer(feed(inputs, ids, mask)), settings, megabytes(folder), told(folder))


def inputs_of(folder: Path) -> tuple[str, ...]:
    """Names of an engine's inputs."""
    return tuple(json.loads((folder / repository.ENGINE_FILE).read_text())["inputs"])


def feed(inputs: tuple[str, ...], ids: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """What an engine takes."""
    values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {name: values[name] for name in inputs}


def told(folder: Path) -> str:
    """The engine's kind."""
    return str(json.loads((folder / repository.ENGINE_FILE).read_text())["kind"])
