"""A model of more than 2 GiB, which protobuf cannot hold: every step up to a served answer, its time and its memory.

    python benchmarks/large.py                      # 2.2 GB of weights: 12 GiB of memory, 12 GB of disk
    python benchmarks/large.py --vocabulary 5000    # the same steps in seconds

A BERT of one layer of width 1024 with a large vocabulary and random weights, exported in float32 and with the quantisers
of INT8. Each step runs in a process of its own, whose memory is its peak, pages of mapped files included; the largest
difference is that of an engine's logits from the graph's, over the largest logit.
"""

import argparse
import logging
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, PreTrainedModel

from optkit.compression import quantizers
from optkit.compression.quantize import Quantize
from optkit.engines import registry as engines
from optkit.graph import reference
from optkit.graph.audit import audit
from optkit.graph.export import export
from optkit.serving import repository
from optkit.serving.client import Client
from optkit.serving.config import ModelConfig
from optkit.serving.server import Server
from optkit.tasks.classification import Classification

LENGTH, CLASSES = 32, 2


def main() -> None:
    """Run every step, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=545_000, help="rows of the word embeddings; default %(default)s")
    parser.add_argument("--float-only", action="store_true", help="leave INT8 out")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for quantised in (False,) if given.float_only else (False, True):
            graph = Path(scratch) / f"quantised-{quantised}" / "model.onnx"
            step(f"export{' with quantisers' * quantised}", exported, given.vocabulary, graph.parent, quantised)
            step("audit", audited, graph)
            step("reference", answered, graph, given.vocabulary)
            for kind in ("onnxruntime", "openvino"):
                for precision in engines.runtime(kind).precisions(quantised):
                    engine = graph.parent / f"{kind}-{precision}"
                    step(f"build {engine.name}", built, graph, kind, precision, engine)
                    step(f"run {engine.name}", ran, engine, given.vocabulary)
                    step(f"serve {engine.name}", served, engine, Path(scratch) / f"served-{engine.name}", given.vocabulary)


def step(name: str, run: Callable[..., str], *arguments: Any) -> None:
    """Run a function in a process of its own, and print what it says, how long it took and how much memory."""
    started = time.perf_counter()
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        said, memory = pool.submit(_measured, run, arguments).result()
    print(f"{name:32} {time.perf_counter() - started:6.1f} s {memory / 1e9:6.2f} GB  {said}", flush=True)


def _measured(run: Callable[..., str], arguments: tuple[Any, ...]) -> tuple[str, int]:
    logging.disable(logging.WARNING)
    return run(*arguments), getrusage(RUSAGE_SELF).ru_maxrss * 1024


def exported(vocabulary: int, folder: Path, quantised: bool) -> str:
    """Export a model."""
    export(model(vocabulary, quantised), folder, LENGTH, Classification)
    return ", ".join(f"{path.name} {path.stat().st_size / 1e9:.3f} GB" for path in sorted(folder.iterdir()))


def model(vocabulary: int, quantised: bool) -> PreTrainedModel:
    """A model with random weights."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=vocabulary,
        max_position_embeddings=LENGTH,
        hidden_size=1024,
        num_hidden_layers=1,
        num_attention_heads=16,
        intermediate_size=1024,
        num_labels=CLASSES,
    )
    with torch.no_grad():
        made = AutoModelForSequenceClassification.from_config(config).eval()
    if quantised:
        tensors = {name: torch.from_numpy(array) for name, array in feed(vocabulary).items()}
        quantizers.insert(made, Quantize(gelu_clip=10.0))
        quantizers.calibrate(made, lambda calibrated: calibrated(**tensors))
    return made


def feed(vocabulary: int) -> dict[str, np.ndarray]:
    """A batch without padding, int64 [4, 16], with words from the whole vocabulary."""
    ids = np.random.default_rng(0).integers(0, vocabulary, (4, 16))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def audited(graph: Path) -> str:
    """Audit a graph."""
    found = audit(graph)
    return f"{found.covered_gemms} of {found.encoder_gemms} GEMMs quantised"


def answered(graph: Path, vocabulary: int) -> str:
    """Write down what the graph answers, beside it."""
    np.save(graph.with_suffix(".npy"), reference.infer(reference.load(graph), feed(vocabulary)))
    return ""


def built(graph: Path, kind: str, precision: str, engine: Path) -> str:
    """Build an engine."""
    engine.mkdir()
    engines.runtime(kind).build(graph, precision, engine)
    return ", ".join(f"{path.name} {path.stat().st_size / 1e9:.3f} GB" for path in sorted(engine.iterdir()))


def ran(engine: Path, vocabulary: int) -> str:
    """Run an engine, and ask it what its kernels are."""
    loaded = engines.load(engine)
    share = loaded.evidence()["int8_gemm_share"]
    return f"{difference(engine, loaded.infer(feed(vocabulary)))}, {share:.0%} of its GEMMs in INT8"


def served(engine: Path, folder: Path, vocabulary: int) -> str:
    """Ask a server that runs an engine."""
    inputs = tuple(feed(vocabulary))
    config = ModelConfig("large", inputs, (CLASSES,), max_sequence=LENGTH, max_batch_size=8, vocab_size=vocabulary)
    repository.place(folder, engine, config, link=True)
    with Server(folder, folder.with_name("logs"), ["large"]) as server, Client(server.url, "large") as client:
        answer = client.infer(feed(vocabulary))
        return f"{difference(engine, answer)}, {server.memory_bytes() / 1e9:.2f} GB in the server"


def difference(engine: Path, logits: np.ndarray) -> str:
    """How far logits are from the graph's."""
    expected = np.load(engine.parent / "model.npy")
    return f"largest difference {np.abs(logits - expected).max() / np.abs(expected).max():.1e}"


if __name__ == "__main__":
    main()
