"""What our load path costs: clients of `optkit load` over a bare loop, in turn on one server.

    python benchmarks/load.py [--clients N] [--rounds N] [--seconds S] [--layers N]

Clients ask a served model of width 384 with 32 tokens. The bare loop posts requests whose bytes are built before, and looks
at nothing but the status; ours builds each request from arrays and checks each answer.
"""

import argparse
import itertools
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from geventhttpclient import HTTPClient
from transformers import BertConfig, BertForSequenceClassification
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from optkit.benchmark.client_pool import ClientPool
from optkit.benchmark.scratch_server import WARM_S
from optkit.engines import registry as engines
from optkit.graph.export import export
from optkit.serving import repository
from optkit.serving.client import Client
from optkit.serving.config import ModelConfig
from optkit.serving.server import Server
from optkit.tasks.base import Feed
from optkit.tasks.classification import Classification

INPUTS, VOCABULARY, LENGTH = ("input_ids", "attention_mask", "token_type_ids"), 1000, 32
MODEL = "bench"


def main() -> None:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each side in each round")
    parser.add_argument("--layers", type=int, default=6)
    measure(parser.parse_args())


def measure(given: argparse.Namespace) -> None:
    """Our clients and the bare loop in turn, as many of both."""
    with tempfile.TemporaryDirectory() as scratch:
        engine, models = build(Path(scratch), given.layers), Path(scratch, "models")
        config = ModelConfig(MODEL, INPUTS, (2,), max_sequence=64, vocab_size=VOCABULARY, threads=1)
        repository.place(models, engine, config, link=True)
        feeds = [feed(1, seed) for seed in range(64)]
        with (
            Server(models, Path(scratch, "logs"), [MODEL]) as server,
            Client(server.url, MODEL) as client,
            ClientPool(client, given.clients) as pool,
        ):
            pool.warm(feeds, WARM_S)
            rates = np.array([one_round(pool, server.url, feeds, given.seconds) for _ in range(given.rounds)])
    ratios = rates[:, 0] / rates[:, 1]
    low, high = np.percentile(ratios, [25, 75])
    print(
        f"{given.clients} clients: ours {np.median(rates[:, 0]):.1f}/s   bare {np.median(rates[:, 1]):.1f}/s   "
        f"ratio {np.median(ratios):.3f} (quartiles {low:.3f} to {high:.3f}, {given.rounds} rounds)"
    )


def one_round(pool: ClientPool, url: str, feeds: Sequence[Feed], seconds: float) -> tuple[float, float]:
    """Requests per second of ours and of the bare loop."""
    return closed_loop(pool, feeds, seconds), bare_loop(url, feeds, pool.clients, seconds)


def closed_loop(pool: ClientPool, feeds: Sequence[Feed], seconds: float) -> float:
    """Requests per second of our load path."""
    ends: list[tuple[float, float]] = []
    started = time.perf_counter()
    pool._loop(feeds, started + seconds, ends)
    pool.check()
    return len(ends) / (time.perf_counter() - started)


def bare_loop(url: str, feeds: Sequence[Feed], clients: int, seconds: float) -> float:
    """Requests per second of threads that post bytes."""
    posts = [prebuilt(one) for one in feeds]
    host, port = url.split(":")
    counts, started = [0] * clients, time.perf_counter()

    def ask(number: int) -> None:
        connection = HTTPClient(host, int(port))
        for index in itertools.count(number, clients):
            body, headers = posts[index % len(posts)]
            answer = connection.post(f"/v2/models/{MODEL}/infer", body=body, headers=headers)
            if answer.status_code != 200:
                raise RuntimeError(f"status {answer.status_code}")
            answer.read()
            counts[number] += 1
            if time.perf_counter() - started >= seconds:
                break
        connection.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


def prebuilt(one: Feed) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a request."""
    tensors = []
    for name, array in one.items():
        tensors.append(InferInput(name, list(array.shape), "INT64"))
        tensors[-1].set_data_from_numpy(array)
    outputs = [InferRequestedOutput("logits", binary_data=True)]
    body, length = InferenceServerClient.generate_request_body(tensors, outputs=outputs)
    return body, {"Inference-Header-Content-Length": str(length)}


def build(folder: Path, layers: int) -> Path:
    """An OpenVINO engine of MiniLM-L6's shape with random weights."""
    torch.manual_seed(0)
    shape = {"hidden_size": 384, "num_hidden_layers": layers, "num_attention_heads": 12, "intermediate_size": 1536}
    export(BertForSequenceClassification(BertConfig(vocab_size=VOCABULARY, **shape)).eval(), folder, 64, Classification)
    engine = folder / "engine"
    engine.mkdir()
    engines.runtime("openvino").build(folder / "model.onnx", "fp32", engine)
    return engine


def feed(batch: int, seed: int) -> dict[str, np.ndarray]:
    """Random tokens without padding."""
    ids = np.random.default_rng(seed).integers(1, VOCABULARY, (batch, LENGTH))
    values = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return {name: values.get(name, np.zeros_like(ids)) for name in INPUTS}


if __name__ == "__main__":
    main()
