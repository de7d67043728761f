"""TensorRT's engines beside each other: float32, 16 bits, INT8, 2:4 and both, as ratios to the faster 16-bit engine.

    python benchmarks/gpu.py                                    # BERT-base at the usual shapes
    python benchmarks/gpu.py --models large --shapes 32x384 --engines fp16 int8-out "int8-out-all 2:4" --minutes 9
    python benchmarks/gpu.py --layers 1 --shapes 8x128 --build-only    # without a GPU: what plans are made of

Weights are random and quantisers calibrated by their maxima; speed depends on neither. Every shape [batch x tokens] has
plans of its own, whose kernels are chosen for it. All plans of a shape take turns, so that a drifting clock moves all
alike. Two times are measured: on the card, by CUDA events around replays of the CUDA graph; and on the wall, from arrays in
host memory to logits in host memory. Each shape's results are written at once as lines of JSON, and printed as a table.
"""

import argparse
import json
import logging
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arguments import MODELS, at_least_one, shape_of
from transformers import BertConfig, BertForSequenceClassification

from optkit import Quantize
from optkit.compression import quantizers
from optkit.core.gpu import gpus
from optkit.engines.tensorrt import library
from optkit.engines.tensorrt.compatibility import PLAN
from optkit.engines.tensorrt.engine import RUNTIME as TENSORRT
from optkit.engines.tensorrt.profiles import Options
from optkit.graph.export import export
from optkit.graph.tensorrt import ranges
from optkit.models.families import encoder_linears
from optkit.tasks.classification import Classification

SHAPES = ["8x128", "32x384", "1x128", "128x128", "1x384", "128x384"]
WARM_UP, REPLAYS = 4, 10


@dataclass
class Plan:
    """One engine at one shape, and what was measured of it."""

    name: str
    precision: str
    variant: str
    sparse: bool
    folder: Path = Path()
    handle: Any = None
    evidence: dict[str, Any] = field(default_factory=dict)
    build_s: float | None = None
    device_ms: list[float] = field(default_factory=list)
    wall_ms: list[float] = field(default_factory=list)
    error: str | None = None

    @property
    def weights(self) -> str | None:
        """Scales of the quantised weights that it needs; None for a float graph."""
        if self.precision != "int8":
            return None
        return "per_tensor" if self.variant.startswith("int8-out") else "per_channel"


def all_plans() -> list[Plan]:
    """Every precision and placement, dense and 2:4, the most telling ones first."""
    found = [Plan(name, name, name, False) for name in TENSORRT.precisions(False)]
    for sparse in (False, True):
        end = " 2:4" if sparse else ""
        if sparse:
            found += [Plan(f"{name}{end}", name, name, True) for name in ("fp16", "bf16") if name in {p.name for p in found}]
        names = {
            variant: variant if variant.startswith("int8") else f"int8-{variant}" for variant in TENSORRT.variants("int8")
        }
        found += [Plan(f"{name}{end}", "int8", variant, sparse) for variant, name in names.items()]
    first = ["fp16", "int8-out", "int8-out-all 2:4", "int8-fp16", "int8-fp16-attention", "int8-out-all", "fp16 2:4"]
    return sorted(found, key=lambda plan: first.index(plan.name) if plan.name in first else len(first))


def main() -> None:
    """Build, measure, write."""
    arguments = parse()
    deadline = time.monotonic() + arguments.minutes * 60 if arguments.minutes else float("inf")
    print(" ".join(f"{value};" for value in machine().values()), flush=True)
    with arguments.json.open("a", encoding="utf-8") as lines, tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            graphs = Graphs(model, arguments, Path(folder))
            for shape in arguments.shapes:
                plans = [plan for plan in all_plans() if plan.name in arguments.engines]
                for plan in plans:
                    build(plan, graphs, shape, deadline)
                if not arguments.build_only:
                    measure([plan for plan in plans if plan.handle], shape, arguments.rounds)
                for line in results(model, graphs.layers, shape, plans):
                    lines.write(json.dumps(line) + "\n")
                lines.flush()
                print(table(model, shape, plans), flush=True)
                shutil.rmtree(graphs.plans())


def parse() -> argparse.Namespace:
    """What to build and how long to measure."""
    names = [plan.name for plan in all_plans()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["base"])
    parser.add_argument(
        "--shapes", nargs="+", type=shape_of, default=[shape_of(text) for text in SHAPES], metavar="BATCHxTOKENS"
    )
    parser.add_argument(
        "--engines", nargs="+", choices=names, default=names, metavar="ENGINE", help=f"out of {', '.join(names)}"
    )
    parser.add_argument("--layers", type=at_least_one, help="fewer layers than the model has, for a trial")
    parser.add_argument("--rounds", type=at_least_one, default=30, help="timed rounds of each shape; default %(default)s")
    parser.add_argument("--minutes", type=float, help="start no build after this; what is left out is told")
    parser.add_argument("--json", type=Path, default=Path("gpu.jsonl"), help="file to append to; default %(default)s")
    parser.add_argument("--build-only", action="store_true", help="build and describe the plans, run none")
    return parser.parse_args()


def machine() -> dict[str, str]:
    """Card, driver and versions, without which the figures mean nothing."""
    card = next((f"{gpu.name}, driver {gpu.driver}" for gpu in gpus()), "no GPU: nothing was run")
    kind = " (the builder without a GPU)" if library.is_offline() else ""
    return {"card": card, "tensorrt": f"TensorRT {library.installed_version()}{kind}", "torch": f"torch {torch.__version__}"}


class Graphs:
    """The exported graphs of a model of random weights, each made when it is asked for; ranges lie beside quantised ones."""

    def __init__(self, model: str, arguments: argparse.Namespace, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.layers = arguments.layers or MODELS[model][0]
        self.tokens = max(tokens for _, tokens in arguments.shapes)
        self.made: dict[tuple[str | None, bool], Path] = {}

    def plans(self) -> Path:
        """The folder of the plans of one shape."""
        folder = self.folder / "plans"
        folder.mkdir(exist_ok=True)
        return folder

    def get(self, weights: str | None, sparse: bool) -> Path:
        """The graph of quantised weights with such scales, or of float weights."""
        if (weights, sparse) not in self.made:
            place = self.folder / f"{self.model}-{weights}-{sparse}"
            model = self._model(sparse)
            if weights is None:
                graph = export(model, place, self.tokens, Classification)
            else:
                quantizers.insert(model, Quantize(weights=weights, gelu_clip=10.0))
                quantizers.calibrate(model, lambda made: made(**as_tensors(feed(2, 32))))
                graph = ranges.prepare(export(model, place / "exported", self.tokens, Classification), [feed(2, 32)], place)
            self.made[weights, sparse] = graph
        return self.made[weights, sparse]

    def _model(self, sparse: bool) -> BertForSequenceClassification:
        _, hidden, heads, intermediate = MODELS[self.model]
        torch.manual_seed(0)
        sizes = {"hidden_size": hidden, "num_attention_heads": heads, "intermediate_size": intermediate}
        positions = max(512, self.tokens)
        config = BertConfig(num_hidden_layers=self.layers, max_position_embeddings=positions, **sizes)
        model = BertForSequenceClassification(config).eval()
        for linear in encoder_linears(model).values() if sparse else ():
            groups = linear.weight.data.view(linear.out_features, -1, 4)
            groups.scatter_(2, groups.abs().argsort(dim=2)[..., :2], 0.0)
        return model


def feed(batch: int, sequence: int) -> dict[str, np.ndarray]:
    """A batch without padding, int64 [batch, sequence]."""
    ids = np.random.default_rng(0).integers(1000, 20000, (batch, sequence))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def as_tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The arrays for PyTorch."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def build(plan: Plan, graphs: Graphs, shape: tuple[int, int], deadline: float) -> None:
    """Build a plan for one shape alone, and load it where it runs; what fails or comes too late is told in its line."""
    if time.monotonic() > deadline:
        plan.error = "left out: no time"
        return
    batch, tokens = shape
    # TF32 as TensorRT does by itself: the harder baseline
    options = Options(batch=f"{batch},{batch},{batch}", sequence=f"{tokens},{tokens},{tokens}", tf32=True)
    plan.folder = Path(tempfile.mkdtemp(dir=graphs.plans()))
    try:
        graph, started = graphs.get(plan.weights, plan.sparse), time.monotonic()
        TENSORRT.build(graph, plan.precision, plan.folder, plan.variant, options)
        plan.build_s = round(time.monotonic() - started, 1)
        plan.evidence = TENSORRT.stored_evidence(plan.folder)
        plan.handle = TENSORRT.load(plan.folder) if TENSORRT.runs_here() else None
    except Exception as error:  # one plan's failure is a result, and the others are still to be measured
        plan.error = f"{type(error).__name__}: {error}"
        print(f"{plan.name}: {plan.error}", file=sys.stderr, flush=True)


def measure(plans: list[Plan], shape: tuple[int, int], rounds: int) -> None:
    """Milliseconds of each plan on the card and on the wall, round by round in turn; the first rounds warm up and record the
    CUDA graphs."""
    batch = feed(*shape)
    for turn in range(rounds + WARM_UP):
        for plan in plans:
            start = time.perf_counter()
            TENSORRT.infer(plan.handle, batch)
            wall = (time.perf_counter() - start) * 1e3
            device = on_device(plan.handle[0], shape)
            if turn >= WARM_UP:
                plan.wall_ms.append(wall)
                plan.device_ms.append(device)


def on_device(runner: Any, shape: tuple[int, int]) -> float:
    """Milliseconds of one run on the card, out of several one after the other."""
    ready = runner.ready_for(shape)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.cuda.stream(runner.stream):
        start.record()
        for _ in range(REPLAYS):
            runner.execute(ready)
        end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / REPLAYS


def results(model: str, layers: int, shape: tuple[int, int], plans: list[Plan]) -> list[dict[str, Any]]:
    """A line for each plan."""
    common = {"model": model, "layers": layers, "batch": shape[0], "tokens": shape[1], **machine()}
    lines = []
    for plan in plans:
        found = {key: ratio(plan, plans, key) for key in ("device_ms", "wall_ms")}
        what = {"engine": plan.name, "precision": plan.precision, "variant": plan.variant, "sparse": plan.sparse}
        times = {key: value and round(value[0], 4) for key, value in found.items()}
        speedups = {f"{key}_vs_16bit": value and value[1] and round(value[1], 3) for key, value in found.items()}
        built = {"build_s": plan.build_s, "plan_mb": size_mb(plan), "evidence": plan.evidence, "error": plan.error}
        lines.append({**common, **what, **times, **speedups, **built})
    return lines


def ratio(plan: Plan, plans: list[Plan], key: str) -> tuple[float, float | None] | None:
    """Median milliseconds, and how much faster that is than the faster dense 16-bit plan; None where none were measured."""
    if not getattr(plan, key):
        return None
    own = statistics.median(getattr(plan, key))
    sixteen = [statistics.median(getattr(one, key)) for one in plans if one.name in ("fp16", "bf16") and getattr(one, key)]
    return own, min(sixteen) / own if sixteen else None


def size_mb(plan: Plan) -> float | None:
    """Megabytes of the plan's file."""
    path = plan.folder / PLAN
    return round(path.stat().st_size / 1e6, 1) if path.is_file() else None


def table(model: str, shape: tuple[int, int], plans: list[Plan]) -> str:
    """What each plan is made of, and how fast it is; releases the plans."""
    heads = ["plan", "MB", "card", "wall", "INT8 GEMMs", "they write", "fused attention, in INT8", "2:4 kernels"]
    lines = [f"### {model}, {shape[0]} x {shape[1]}\n", f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for plan in plans:
        found, plan.handle = plan.evidence, None
        share, sparse = found.get("int8_gemm_share"), found.get("sparse_layers_chosen")
        cells = [
            plan.name,
            str(size_mb(plan) or ""),
            *(cell(ratio(plan, plans, key)) for key in ("device_ms", "wall_ms")),
            "unknown" if share is None else f"{share:.0%}",
            ", ".join(f"{kind} {count}" for kind, count in found.get("gemm_outputs", {}).items()),
            f"{found.get('fused_attention')}, {found.get('int8_attention')}",
            "unknown" if sparse is None else str(sparse),
        ]
        lines.append(f"| {' | '.join(cells)} |" if found else f"| {plan.name} | {plan.error} |{' |' * (len(heads) - 2)}")
    return "\n".join(lines) + "\n"


def cell(found: tuple[float, float | None] | None) -> str:
    """Milliseconds and the ratio."""
    if found is None:
        return ""
    return f"{found[0]:.3f} ms" + (f", {found[1]:.2f}x" if found[1] else "")


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main()
