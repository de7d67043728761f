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

from optkit.engines import registry as engines
from optkit.serving import repository
from optkit.serving.client import Client
from optkit.serving.config import ModelConfig
from optkit.serving.server import Server

Feed = dict[str, np.ndarray]
Infer = Callable[[Feed], np.ndarray]
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
    logits = handle.infer(feed(inputs, 1, 8))
    shape = (logits.shape[1],) if logits.ndim == 2 else (-1, 2)
    with tempfile.TemporaryDirectory() as scratch:
        models = Path(scratch, "repository")
        repository.place(models, folder, ModelConfig("engine", inputs, shape, threads=threads), link=True)
        with Server(models, Path(scratch, "logs"), ["engine"]) as server, Client(server.url, "engine") as client:
            for batch, sequence in BATCHES:
                asked = feed(inputs, batch, sequence)
                report(batch, sequence, alternate(handle.infer, client.infer, asked, rounds))


def report(batch: int, sequence: int, times_ms: np.ndarray) -> None:
    """One line; the share is the median over the rounds, as both calls of a round saw the same load."""
    direct_ms, served_ms = np.median(times_ms, axis=0)
    share = float(np.median(times_ms[:, 0] / times_ms[:, 1]))
    verdict = f"  below {TARGET:.0%}" if share < TARGET and batch > 1 else ""
    print(f"{batch:>3} x {sequence:<4} direct {direct_ms:8.2f} ms   served {served_ms:8.2f} ms   {share:6.1%}{verdict}")


def feed(inputs: tuple[str, ...], batch: int, sequence: int) -> Feed:
    """Random tokens without padding."""
    ids = np.random.default_rng(0).integers(1000, 20000, (batch, sequence))
    values = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return {name: values.get(name, np.zeros_like(ids)) for name in inputs}


def alternate(direct: Infer, served: Infer, asked: Feed, rounds: int) -> np.ndarray:
    """Times in milliseconds [rounds, 2] of two ways to ask that take turns, after a warm-up."""
    times_ms = []
    for _ in range(rounds + rounds // 5):
        row = []
        for call in (direct, served):
            started = time.perf_counter()
            call(asked)
            row.append((time.perf_counter() - started) * 1e3)
        times_ms.append(row)
    return np.array(times_ms[rounds // 5 :])


if __name__ == "__main__":
    main()
