"""What the server costs: the same engine called directly and through Triton, alternating in one run.

    python benchmarks/serving.py ENGINE_FOLDER [--threads N] [--rounds N]

Prints one line per batch: the median time of both in milliseconds, and the share of the direct throughput that the
server reaches with one client on the same cores.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from optkit import engines
from optkit.serving import repository
from optkit.serving.client import Client
from optkit.serving.config import ModelConfig
from optkit.serving.server import Server

BATCHES = ((1, 32), (1, 128), (8, 128), (32, 128))
TARGET = 0.85


def main() -> None:
    """Measure one engine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", type=Path, help="an engine's folder, with engine.json")
    parser.add_argument("--threads", type=int, help="threads of the engine; its own choice if left out")
    parser.add_argument("--rounds", type=int, default=60, help="measured calls of each kind and batch")
    arguments = parser.parse_args()
    measure(arguments.engine, arguments.threads, arguments.rounds)


def measure(folder: Path, threads: int | None, rounds: int) -> None:
    """Place the engine in a scratch repository and compare."""
    handle = engines.load(folder, threads)
    inputs = tuple(json.loads((folder / repository.ENGINE_FILE).read_text())["inputs"])
    logits = engines.infer(handle, feed(inputs, 1, 8))
    shape = (logits.shape[1],) if logits.ndim == 2 else (-1, 2)
    with tempfile.TemporaryDirectory() as scratch:
        models = Path(scratch, "repository")
        repository.place(models, folder, ModelConfig("engine", inputs, shape, threads=threads), link=True)
        with Server(models, Path(scratch, "logs"), ["engine"]) as server, Client(server.url, "engine") as client:
            for batch, sequence in BATCHES:
                asked = feed(inputs, batch, sequence)
                direct_ms, served_ms = alternate(lambda: engines.infer(handle, asked), lambda: client.infer(asked), rounds)
                verdict = "" if direct_ms / served_ms >= TARGET or batch == 1 else f"  below {TARGET:.0%}"
                print(
                    f"{batch:>3} x {sequence:<4} direct {direct_ms:8.2f} ms   served {served_ms:8.2f} ms   "
                    f"{direct_ms / served_ms:6.1%}{verdict}"
                )


def feed(inputs: tuple[str, ...], batch: int, sequence: int) -> dict[str, np.ndarray]:
    """Random tokens without padding."""
    ids = np.random.default_rng(0).integers(1000, 20000, (batch, sequence))
    values = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return {name: values.get(name, np.zeros_like(ids)) for name in inputs}


def alternate(first: Callable[[], object], second: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median times in milliseconds of two calls that take turns, so that both see the same machine."""
    times_ms: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + rounds // 5):
        for call, times in zip((first, second), times_ms, strict=True):
            started = time.perf_counter()
            call()
            times.append((time.perf_counter() - started) * 1e3)
    warm_up = rounds // 5
    return float(np.median(times_ms[0][warm_up:])), float(np.median(times_ms[1][warm_up:]))


if __name__ == "__main__":
    main()
