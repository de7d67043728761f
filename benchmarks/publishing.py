"""Publishes and rollbacks under load: failed and wrong requests, latency during a switch, the server's memory.

    python benchmarks/publishing.py [--clients N] [--rounds N] [--hidden N] [--layers N]

Sixteen clients ask a served BERT-type encoder all the time, each waiting for its answer, while versions of it are
published and rolled back in turn on the running server. Every answer is compared with those of the versions. A switch
lasts from the command's start until its end: its trial on the server included.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification

from optkit.engines import registry as engines
from optkit.graph.export import export
from optkit.registry import smoke_test
from optkit.registry.disk import locked
from optkit.registry.live_server import Running
from optkit.registry.release import Release, place
from optkit.registry.rollback import prune, rollback
from optkit.registry.smoke_test import Probe
from optkit.serving.client import Client
from optkit.serving.config import ModelConfig
from optkit.serving.server import Server
from optkit.tasks.classification import Classification

MODEL, INPUTS, VOCABULARY, LENGTH = "load", ("input_ids", "attention_mask", "token_type_ids"), 1000, 32


@dataclass
class Load:
    """What clients have seen."""

    started: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    wrong: int = 0


def main() -> None:
    """Measure, and print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=20, help="publishes and rollbacks, in turn")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--steady", type=float, default=10.0, help="seconds of steady load before the first switch")
    parser.add_argument("--http-threads", type=int, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(Path(scratch), given)


def measure(scratch: Path, given: argparse.Namespace) -> None:
    """Two models with other weights take turns."""
    releases = [release(scratch / str(seed), seed, given.hidden, given.layers) for seed in range(2)]
    root = scratch / "repository"
    with locked(root, "benchmark"):
        place(root, releases[0], lambda staged: {})
    with Server(root, scratch / "logs", [MODEL], http_threads=given.http_threads) as server:
        load = Load()
        memory = [(time.perf_counter(), server.memory_bytes())]
        with under_load(server, releases, given.clients, load):
            time.sleep(given.steady)
            steady = (load.started[0] + 1.0, time.perf_counter())
            switches = [switch(root, releases, number, server, memory) for number in range(given.rounds)]
            time.sleep(2.0)
            memory.append((time.perf_counter(), server.memory_bytes()))
    report(load, steady, switches, memory)


def switch(
    root: Path, releases: list[Release], number: int, server: Server, memory: list[tuple[float, int]]
) -> tuple[float, float]:
    """Publish in the even rounds, roll back in the odd ones; returns start and end."""
    start = time.perf_counter()
    if number % 2 == 0:
        with locked(root, "benchmark"):
            place(root, releases[1], lambda staged: {}, Running(server.url))
    else:
        rollback(root, MODEL, to=1, url=server.url)
    end = time.perf_counter()
    if number % 2:
        prune(root, MODEL, keep=1)
    time.sleep(1.0)
    memory.append((time.perf_counter(), server.memory_bytes()))
    return start, end


@contextmanager
def under_load(server: Server, releases: list[Release], clients: int, load: Load) -> Iterator[None]:
    """Clients that ask for as long as the block lasts."""
    stop = threading.Event()
    right = [release.probes[smoke_test.SAMPLE].logits for release in releases]
    feed = releases[0].probes[smoke_test.SAMPLE].feed

    def ask() -> None:
        with Client(server.url, MODEL) as client:
            while not stop.is_set():
                started = time.perf_counter()
                try:
                    answer = client.infer(feed)
                except Exception as error:
                    load.failures.append(error)
                    continue
                load.wrong += not any(np.allclose(answer, logits, atol=1e-3) for logits in right)
                load.started.append(started)
                load.ended.append(time.perf_counter())

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def report(
    load: Load, steady: tuple[float, float], switches: list[tuple[float, float]], memory: list[tuple[float, int]]
) -> None:
    """Print what was seen."""
    started, ended = np.array(load.started), np.array(load.ended)
    order = np.argsort(started[: len(ended)])
    started, ended = started[: len(ended)][order], ended[order]
    times_ms = (ended - started) * 1e3
    calm = times_ms[(started > steady[0]) & (ended < steady[1])]
    during = np.concatenate([times_ms[(ended > a) & (started < b)] for a, b in switches])
    each = [np.percentile(times_ms[(ended > a) & (started < b)], 99) for a, b in switches]
    p99, p99_during = np.percentile(calm, 99), np.percentile(during, 99)
    print(f"requests {len(times_ms)}   failed {len(load.failures)}   wrong {load.wrong}   switches {len(switches)}")
    print(f"steady   p50 {np.median(calm):8.1f} ms   p99 {p99:8.1f} ms   largest {calm.max():8.1f} ms   n {len(calm)}")
    print(
        f"switch   p50 {np.median(during):8.1f} ms   p99 {p99_during:8.1f} ms   largest {during.max():8.1f} ms   "
        f"n {len(during)}   p99 {p99_during / p99:.2f} of the steady one (worst switch {max(each) / p99:.2f})"
    )
    seconds = [b - a for a, b in switches]
    print(f"seconds  publish {np.median(seconds[::2]):.1f}   rollback {np.median(seconds[1::2] or [0]):.1f}   (medians)")
    values = [value / 1e6 for _, value in memory]
    print(f"memory   {values[0]:.0f} MB before, {values[-1]:.0f} MB after, largest {max(values):.0f} MB")
    for error in load.failures[:3]:
        print(f"failed: {error}")


def release(folder: Path, seed: int, hidden: int, layers: int) -> Release:
    """An OpenVINO engine with random weights, and what `place` takes."""
    torch.manual_seed(seed)
    shape = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": hidden // 32}
    config = BertConfig(vocab_size=VOCABULARY, intermediate_size=4 * hidden, initializer_range=0.2, **shape)
    folder.mkdir()
    export(BertForSequenceClassification(config).eval(), folder, 128, Classification)
    engine = folder / "engine"
    engine.mkdir()
    engines.runtime("openvino").build(folder / "model.onnx", "fp32", engine)
    settings = ModelConfig(MODEL, INPUTS, (2,), 8, 64, vocab_size=VOCABULARY, threads=1)
    return Release(engine, settings, smoke_test.make(engine, settings, sample(engine)), origin(engine))


def sample(engine: Path) -> Probe:
    """One text of 32 tokens, and the engine's answer."""
    ids = np.random.default_rng(0).integers(1, VOCABULARY, (1, LENGTH))
    values = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    feed = {name: values.get(name, np.zeros_like(ids)) for name in INPUTS}
    return Probe(feed, engines.load(engine, 1).infer(feed))


def origin(engine: Path) -> dict:
    """Provenance without a recipe: random weights were not made by any."""
    row = {
        "layers": 0, "precision": "fp32", "size_bytes": sum(path.stat().st_size for path in engine.iterdir()),
        "delta_ci95": [0.0, 0.0], "metric": "none", "value": 0.0, "baseline": 0.0, "delta": 0.0, "max_drop": 0.0,
        "verdict": "pass", "rungs": {}, "recipe": "none", "speedup_vs_16bit": None, "served_by": "none",
        "latency_ms": {}, "seed": 0,
    }  # fmt: skip
    engine_record = {"kind": "openvino", "cpu_features": []}
    return {
        "task": "none", "recipe": {"name": "none", "stages": []}, "seed": 0, "data": "none", "git": None, "row": row,
        "rows": [], "engine": engine_record, "machine": {"processor": "none", "threads": 1},
    }  # fmt: skip


if __name__ == "__main__":
    main()
