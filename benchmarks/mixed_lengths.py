"""What requests of different lengths cost that share a batch: cut into runs of similar length, and padded to the longest.

    python benchmarks/mixed_lengths.py ENGINE_FOLDER TOKENIZER --squad FILE --sst2 FILE [--clients N] [--rounds N]

Passages of SQuAD and sentences of SST-2, as many of both, are asked in random order by clients of one server, which has the
engine twice, in turn. Prints tokens per second without padding, and how far the answers are from each other.
"""

import argparse
import csv
import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from optkit.engines import registry as engines
from optkit.serving import repository
from optkit.serving.client import Client
from optkit.serving.config import ModelConfig
from optkit.serving.server import Server

Feed = dict[str, np.ndarray]
LONGEST = 512
QUEUE_DELAY_US = 2000
WHOLE = """
class TritonPythonModel(TritonPythonModel):
    def initialize(self, args):
        super().initialize(args)
        self.call = float("inf")
"""
"""Behind a version's `model.py`: all requests of a batch share a run."""


def main() -> None:
    """Measure one engine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", type=Path, help="an engine's folder, with engine.json")
    parser.add_argument("tokenizer", type=Path, help="its tokenizer.json")
    parser.add_argument("--squad", type=Path, required=True, help="passages, as SQuAD's own JSON")
    parser.add_argument("--sst2", type=Path, required=True, help="sentences, as GLUE's TSV")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=64, help="of a round")
    parser.add_argument("--threads", type=int, help="of the engine")
    given = parser.parse_args()
    inputs = tuple(json.loads((given.engine / repository.ENGINE_FILE).read_text())["inputs"])
    measure(given, inputs, feeds(given, inputs))


def feeds(given: argparse.Namespace, inputs: Sequence[str]) -> list[Feed]:
    """A request for each text."""
    squad = json.loads(given.squad.read_text(encoding="utf-8"))["data"]
    passages = [one["context"] for article in squad for one in article["paragraphs"]]
    with given.sst2.open(encoding="utf-8", newline="") as file:
        sentences = [row["sentence"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    drawn = random.Random(0)
    half = given.requests * given.rounds // 2
    texts = drawn.sample(passages, min(half, len(passages))) + drawn.sample(sentences, min(half, len(sentences)))
    drawn.shuffle(texts)
    tokenizer = Tokenizer.from_file(str(given.tokenizer))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    return [_feed(encoding.ids, inputs) for encoding in tokenizer.encode_batch(texts)]


def _feed(ids: Sequence[int], inputs: Sequence[str]) -> Feed:
    array = np.array([ids])
    values = {"input_ids": array, "attention_mask": np.ones_like(array)}
    return {name: values.get(name, np.zeros_like(array)) for name in inputs}


def measure(given: argparse.Namespace, inputs: tuple[str, ...], asked: Sequence[Feed]) -> None:
    """Serve the engine twice, and ask both the same in turn."""
    logits = engines.load(given.engine, given.threads).infer(asked[0])
    shape = (logits.shape[1],) if logits.ndim == 2 else (-1, logits.shape[2])
    with tempfile.TemporaryDirectory() as scratch:
        models = Path(scratch, "repository")
        for name in ("whole", "runs"):
            config = ModelConfig(name, inputs, shape, queue_delay_us=QUEUE_DELAY_US, threads=given.threads)
            version = repository.place(models, given.engine, config, link=True)
            if name == "whole":
                (version / "model.py").write_text(repository.model_py() + WHOLE)
        with (
            Server(models, Path(scratch, "logs"), ["whole", "runs"]) as server,
            Client(server.url, "whole") as whole,
            Client(server.url, "runs") as runs,
        ):
            report([_round(whole, runs, part, given.clients) for part in _parts(asked, given.requests)])


def _parts(asked: Sequence[Feed], size: int) -> list[Sequence[Feed]]:
    return [asked[first : first + size] for first in range(0, len(asked), size)]


def _round(whole: Client, runs: Client, asked: Sequence[Feed], clients: int) -> tuple[float, float, float]:
    """Tokens per second of both, and the largest difference between their answers relative to the largest answer."""
    tokens = sum(feed["input_ids"].size for feed in asked)
    rates, answers = [], []
    for client in (whole, runs):
        started = time.perf_counter()
        answers.append(client.infer_many(asked, clients))
        rates.append(tokens / (time.perf_counter() - started))
    scale = max(np.abs(one).max() for one in answers[0])
    apart = max(np.abs(one - other).max() for one, other in zip(*answers, strict=True))
    return rates[0], rates[1], float(apart / scale)


def report(rounds: Sequence[tuple[float, float, float]]) -> None:
    """One line; the first round compiles shapes and does not count."""
    found = np.array(rounds[1:])
    ratios = found[:, 1] / found[:, 0]
    low, high = np.percentile(ratios, [25, 75])
    print(
        f"padded to the longest {np.median(found[:, 0]):.0f} tokens/s   runs of similar length {np.median(found[:, 1]):.0f} "
        f"tokens/s   ratio {np.median(ratios):.2f} (quartiles {low:.2f} to {high:.2f}, {len(found)} rounds)   "
        f"answers apart {found[:, 2].max():.1e}"
    )


if __name__ == "__main__":
    main()
