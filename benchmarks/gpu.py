"""TensorRT's engines beside each other: float32, 16 bits, INT8, 2:4 and both, as ratios to the faster 16-bit engine.

    python benchmarks/gpu.py                                   # MiniLM, BERT-base and BERT-large shapes
    python benchmarks/gpu.py --models minilm --batches 1 32
    python benchmarks/gpu.py --models minilm --build-only      # without a GPU: what is built, and nothing of its speed

Weights are random and quantisers calibrated by their maxima; speed depends on neither. All engines of a model take turns
request by request, so that a drifting clock moves all of them alike; ids go to the card and logits come back in the time.
"""

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification

from optkit.core.gpu import gpus
from optkit.engines.tensorrt import library
from optkit.engines.tensorrt.compatibility import PLAN
from optkit.engines.tensorrt.engine import RUNTIME as TENSORRT
from optkit.engines.tensorrt.profiles import Options
from optkit.graph.export import export
from optkit.graph.tensorrt import ranges
from optkit.models.families import encoder_linears
from optkit.models.gelu import ClippedGELU
from optkit.tasks.classification import Classification

MODELS = {"minilm": (6, 384, 12, 1536), "base": (12, 768, 12, 3072), "large": (24, 1024, 16, 4096)}
"""Layers, width, heads, width of the feed-forward block."""


class Engine(NamedTuple):
    """One plan."""

    name: str
    folder: Path
    evidence: dict


def main() -> None:
    """Build, measure, print Markdown."""
    arguments = parse()
    print(heading(arguments))
    for model in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            engines = build_all(model, arguments, Path(folder))
            print(table_of_plans(model, engines), flush=True)
            if not arguments.build_only:
                print(table_of_speed(engines, arguments), flush=True)


def parse() -> argparse.Namespace:
    """What to build and how long to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32, 128])
    parser.add_argument("--sequences", nargs="+", type=int, default=[128, 384])
    parser.add_argument("--layers", type=int, help="fewer layers than the model has, for a trial")
    parser.add_argument("--rounds", type=int, default=50, help="timed runs of each; default %(default)s")
    parser.add_argument("--build-only", action="store_true", help="build and describe the plans, run none")
    return parser.parse_args()


def heading(arguments: argparse.Namespace) -> str:
    """Card, driver and TensorRT, without which the figures mean nothing."""
    card = "; ".join(f"{gpu.name}, driver {gpu.driver}" for gpu in gpus()[:1]) or "no GPU: nothing was run"
    kind = " (the builder without a GPU)" if library.is_offline() else ""
    return f"{card}; TensorRT {library.installed_version()}{kind}; torch {torch.__version__}\n"


def build_all(model: str, arguments: argparse.Namespace, folder: Path) -> list[Engine]:
    """Every precision and placement of a model, dense and 2:4."""
    longest, largest = max(arguments.sequences), max(arguments.batches)
    # TF32 as TensorRT does by itself: the harder baseline
    batch, sequence = f"1,{min(8, largest)},{largest}", f"1,{min(128, longest)},{longest}"
    options = Options(batch=batch, sequence=sequence, tf32=True)
    engines = []
    for sparse in (False, True):
        for quantised in (False, True):
            graph = graph_of(model, arguments, quantised, sparse, folder / f"graph-{quantised}-{sparse}")
            for precision in TENSORRT.precisions(quantised):
                if sparse and precision == "fp32":
                    continue
                for variant in TENSORRT.variants(precision):
                    name = f"{precision}{' ' + variant if quantised else ''}{' 2:4' if sparse else ''}"
                    place = folder / name.replace(" ", "-").replace(":", "")
                    place.mkdir()
                    TENSORRT.build(graph, precision, place, variant, options)
                    engines.append(Engine(name, place, TENSORRT.stored_evidence(place)))
    return engines


def graph_of(model: str, arguments: argparse.Namespace, quantised: bool, sparse: bool, folder: Path) -> Path:
    """The exported graph of a model of random weights; ranges lie beside a quantised one."""
    layers, hidden, heads, intermediate = MODELS[model]
    torch.manual_seed(0)
    config = BertConfig(
        num_hidden_layers=arguments.layers or layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        max_position_embeddings=max(512, *arguments.sequences),
    )
    made = BertForSequenceClassification(config).eval()
    if sparse:
        prune(made)
    if not quantised:
        return export(made, folder, max(arguments.sequences), Classification)
    quantise(made)
    graph = export(made, folder / "exported", max(arguments.sequences), Classification)
    return ranges.prepare(graph, [feed(2, 32)], folder)


def prune(made: BertForSequenceClassification) -> None:
    """Zero the two smallest of every four consecutive inputs of the encoder's Linear modules."""
    for linear in encoder_linears(made).values():
        groups = linear.weight.data.view(linear.out_features, -1, 4)
        groups.scatter_(2, groups.abs().argsort(dim=2)[..., :2], 0.0)


def quantise(made: BertForSequenceClassification) -> None:
    """INT8 quantisers on the encoder's Linear modules, calibrated on one batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import modelopt.torch.quantization as mtq
    for layer in made.bert.encoder.layer:
        layer.intermediate.intermediate_act_fn = ClippedGELU(10.0)
    entries = [
        {"quantizer_name": "*", "enable": False},
        {"quantizer_name": "*encoder.layer.*weight_quantizer", "cfg": {"num_bits": 8, "axis": 0}},
        {"quantizer_name": "*encoder.layer.*input_quantizer", "cfg": {"num_bits": 8, "axis": None}},
        {"quantizer_name": "*LayerNorm*", "enable": False},
    ]
    tensors = {name: torch.from_numpy(array) for name, array in feed(2, 32).items()}

    def forward(calibrated: torch.nn.Module) -> None:
        with torch.no_grad():
            calibrated(**tensors)

    mtq.quantize(made, {"quant_cfg": entries, "algorithm": "max"}, forward)


def feed(batch: int, sequence: int) -> dict[str, np.ndarray]:
    """A batch without padding, int64 [batch, sequence]."""
    ids = np.random.default_rng(0).integers(1000, 20000, (batch, sequence))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def table_of_plans(model: str, engines: list[Engine]) -> str:
    """What each plan is made of."""
    lines = [f"### {model}: plans\n", "| plan | MB | INT8 GEMMs | fused attention | of it INT8 | 2:4 kernels |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    for engine in engines:
        found = engine.evidence
        size = (engine.folder / PLAN).stat().st_size / 1e6
        cells = [
            f"{size:.1f}",
            "unknown" if found["int8_gemm_share"] is None else f"{found['int8_gemm_share']:.0%}",
            found["fused_attention"] or "unknown",
            found["int8_attention"] or "unknown",
            "unknown" if found["sparse_layers_chosen"] is None else str(found["sparse_layers_chosen"]),
        ]
        lines.append(f"| {engine.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def table_of_speed(engines: list[Engine], arguments: argparse.Namespace) -> str:
    """Median milliseconds of each plan at each shape, and how much faster than the faster 16-bit plan."""
    handles = {engine.name: TENSORRT.load(engine.folder) for engine in engines}
    shapes = [(batch, sequence) for sequence in arguments.sequences for batch in arguments.batches]
    columns = {shape: measure(handles, feed(*shape), arguments.rounds) for shape in shapes}
    lines = ["| plan | " + " | ".join(f"{batch} × {sequence}" for batch, sequence in shapes) + " |"]
    lines.append("| --- |" + " ---: |" * len(shapes))
    for engine in engines:
        cells = []
        for shape in shapes:
            medians = columns[shape]
            sixteen = min(medians[name] for name in ("fp16", "bf16") if name in medians)
            cells.append(f"{medians[engine.name]:.2f} ms, {sixteen / medians[engine.name]:.2f}×")
        lines.append(f"| {engine.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def measure(handles: dict, batch: dict[str, np.ndarray], rounds: int) -> dict[str, float]:
    """Median milliseconds, all taking turns; the first four rounds warm up and record the CUDA graphs."""
    times: dict[str, list[float]] = {name: [] for name in handles}
    for turn in range(rounds + 4):
        for name, handle in handles.items():
            start = time.perf_counter()
            TENSORRT.infer(handle, batch)
            if turn >= 4:
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main()
