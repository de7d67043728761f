"""What text costs: a published classifier asked in text and in tokens, alternating in one run on one server.

    python benchmarks/text.py REPOSITORY MODEL --task sample [--batch N] [--rounds N]

Prints the median milliseconds of a batch both ways, and the share of the tensor server's throughput that the text
pipeline reaches with one client on the same cores. The client sends the same dev examples; tokens are made beforehand.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from optkit.serving import ensemble
from optkit.serving.backend.encoding import Encoder, encoded
from optkit.serving.client import Client
from optkit.serving.server import Server
from optkit.serving.text_client import TextClient
from optkit.tasks.classification import Classification
from optkit.tasks.registry import load

TARGET = 0.8


def main() -> None:
    """Measure one model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", type=Path)
    parser.add_argument("model")
    parser.add_argument("--task", required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=60)
    given = parser.parse_args()
    task = load(given.task, given.data)
    assert isinstance(task, Classification)
    columns = [task.examples("dev")[name][: given.batch * given.rounds] for name in task.text_columns]
    texts = list(zip(*columns, strict=True))
    batches = [texts[first : first + given.batch] for first in range(0, len(texts), given.batch)]
    with (
        tempfile.TemporaryDirectory() as logs,
        Server(given.repository, Path(logs), [given.model, ensemble.pipeline(given.model)]) as server,
        Client(server.url, given.model) as tensors,
        TextClient(server.url, given.model) as words,
    ):
        encoder = Encoder(given.repository / ensemble.steps(given.model)[0] / "1")
        inputs = [tensor["name"] for tensor in tensors.config()["input"]]
        report(given.batch, alternate(batches, encoder, inputs, tensors, words))


def alternate(
    batches: list[list[tuple[str, ...]]], encoder: Encoder, inputs: list[str], tensors: Client, words: TextClient
) -> np.ndarray:
    """Milliseconds [rounds, 2] in tokens and in text, after a warm-up."""
    times_ms = []
    for texts in [*batches[:5], *batches]:
        columns = zip(encoder.settings.fields, zip(*texts, strict=True), strict=True)
        feed = encoded(encoder, {name: np.array([[one.encode()] for one in column]) for name, column in columns}, inputs)
        row = []
        for ask, asked in ((tensors.infer, feed), (words.ask, texts)):
            started = time.perf_counter()
            ask(asked)
            row.append((time.perf_counter() - started) * 1e3)
        times_ms.append(row)
    return np.array(times_ms[5:])


def report(batch: int, times_ms: np.ndarray) -> None:
    """One line; the share is the median over the rounds, as both requests of a round saw the same load."""
    tokens_ms, text_ms = np.median(times_ms, axis=0)
    share = float(np.median(times_ms[:, 0] / times_ms[:, 1]))
    verdict = f"  below {TARGET:.0%}" if share < TARGET else ""
    print(f"batch {batch}: in tokens {tokens_ms:.2f} ms   in text {text_ms:.2f} ms   {share:.1%}{verdict}")


if __name__ == "__main__":
    main()
