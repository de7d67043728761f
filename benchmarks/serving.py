"""What the server and its front cost: one engine called directly, through Triton alone, and through the front before it.

    python benchmarks/serving.py ENGINE_FOLDER [--threads N] [--rounds N]

The three take turns in one run. Prints a line per batch: median times in milliseconds, the share of the direct throughput
that the server reaches with one client on the same cores, and the throughput that the front costs.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from optkit.engines import registry as engines
from optkit.serving import command, install, repository
from optkit.serving.client import Client
from optkit.serving.config import ModelConfig
from optkit.serving.server import Server
from optkit.serving.ticket import Ticket

Feed = dict[str, np.ndarray]
Infer = Callable[[Feed], np.ndarray]
MODEL = "engine"
BATCHES = ((1, 32), (1, 128), (8, 128), (32, 128))
TARGET = 0.85
FRONT_COSTS = {1: 0.05, 8: 0.03}
"""Bound of the front's cost by batch."""


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
        repository.place(models, folder, ModelConfig(MODEL, inputs, shape, threads=threads), link=True)
        with (
            without_front(models, Path(scratch)) as url,
            Server(models, Path(scratch, "logs"), [MODEL]) as server,
            Client(url, MODEL) as bare,
            Client(server.url, MODEL) as client,
        ):
            for batch, sequence in BATCHES:
                asked = feed(inputs, batch, sequence)
                report(batch, sequence, alternate((handle.infer, bare.infer, client.infer), asked, rounds))


@contextmanager
def without_front(models: Path, scratch: Path) -> Iterator[str]:
    """Yield the address of a Triton that clients reach directly."""
    installation = install.find()
    with command.listen(None, grpc=False) as free:
        port = free.http_port
    ticket = Ticket(f"bare-{port}", "", str(scratch), None)
    arguments = command.arguments(ticket, models, installation.backends, None, 4, 60, 0)
    arguments = [one for one in arguments if not one.startswith(("--http-address", "--grpc", "--metrics"))]
    arguments += [f"--http-address={command.ADDRESS}", f"--http-port={port}", f"--load-model={MODEL}"]
    arguments += ["--allow-grpc=false", "--allow-metrics=false"]
    with (scratch / "bare.log").open("w") as log:
        process = subprocess.Popen(
            [installation.binary, *arguments],
            env=os.environ | installation.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # as the other's, which has its own share of a busy machine's time
        )
    try:
        wait_until_ready(process, f"{command.ADDRESS}:{port}")
        yield f"{command.ADDRESS}:{port}"
    finally:
        process.terminate()
        process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    """Wait for a server that is starting."""
    while process.poll() is None:
        try:
            with Client(url, MODEL) as client:
                client.metadata()
            return
        except Exception:
            time.sleep(0.1)
    raise SystemExit("Triton ended while it was starting")


def report(batch: int, sequence: int, times_ms: np.ndarray) -> None:
    """One line; shares are medians over the rounds, as all calls of a round saw the same load."""
    direct_ms, bare_ms, served_ms = np.median(times_ms, axis=0)
    share = float(np.median(times_ms[:, 0] / times_ms[:, 2]))
    cost = 1 - float(np.median(times_ms[:, 1] / times_ms[:, 2]))
    verdict = f"  below {TARGET:.0%}" if share < TARGET and batch > 1 else ""
    verdict += f"  above {FRONT_COSTS[batch]:.0%}" if cost > FRONT_COSTS.get(batch, 1) else ""
    print(
        f"{batch:>3} x {sequence:<4} direct {direct_ms:8.2f} ms   without front {bare_ms:8.2f} ms   "
        f"served {served_ms:8.2f} ms   {share:6.1%}   front {cost:+6.1%}{verdict}"
    )


def feed(inputs: tuple[str, ...], batch: int, sequence: int) -> Feed:
    """Random tokens without padding."""
    ids = np.random.default_rng(0).integers(1000, 20000, (batch, sequence))
    values = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return {name: values.get(name, np.zeros_like(ids)) for name in inputs}


def alternate(calls: Sequence[Infer], asked: Feed, rounds: int) -> np.ndarray:
    """Times in milliseconds [rounds, calls] of ways to ask that take turns, in both orders, after a warm-up."""
    times_ms = np.zeros((rounds + rounds // 5, len(calls)))
    for number, row in enumerate(times_ms):
        for call in range(len(calls)) if number % 2 else reversed(range(len(calls))):
            started = time.perf_counter()
            calls[call](asked)
            row[call] = (time.perf_counter() - started) * 1e3
    return times_ms[rounds // 5 :]


if __name__ == "__main__":
    main()
