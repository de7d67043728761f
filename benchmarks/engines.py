"""How fast engines are, beside each other and beside the bare matrix products they cannot beat.

    python benchmarks/engines.py                       # MiniLM-L6: 6 layers of width 384
    python benchmarks/engines.py --layers 12 --hidden 768 --heads 12 --intermediate 3072 --batch 8

Everything is measured in one run, taking turns, and reported as medians: on a machine that others use too only the
ratios mean something, and those of the processor time that one thread takes most of all:

    python benchmarks/engines.py --threads 1 --clock cpu --batch 16

The weights are random and the quantisers calibrated by their maxima; speed depends on neither.
"""

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import BertConfig, BertForSequenceClassification

from optkit.compression import quantizers
from optkit.compression.quantize import Quantize
from optkit.core.cpu import available_threads, cpu_features, int8_saturates
from optkit.engines import registry as engines
from optkit.graph.export import export
from optkit.tasks.classification import Classification

Run = Callable[[], object]
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
BASE = "onnxruntime fp32"
SETTLING_S = 0.02
"""How long libgomp's threads may wait for the next product of torch before they sleep."""


def main() -> None:
    """Build, measure, print."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        runs = engine_runs(arguments, Path(folder)) | bare_products(arguments)
        if arguments.student:
            runs |= student_runs(arguments, Path(folder) / "student")
        medians = measure(runs, arguments.rounds, CLOCKS[arguments.clock])
    show(medians, arguments)


def parse() -> argparse.Namespace:
    """The model's shape, the batch's, and how long to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"layers": 6, "hidden": 384, "heads": 12, "intermediate": 1536, "batch": 32, "sequence": 128}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--student", type=int, default=4, help="layers of an INT8 student; 0 for none; default %(default)s")
    parser.add_argument("--rounds", type=int, default=11, help="timed runs of each; default %(default)s")
    parser.add_argument("--threads", type=int, default=available_threads(), help="default %(default)s")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="time on the wall, or of the processor")
    return parser.parse_args()


def engine_runs(arguments: argparse.Namespace, folder: Path) -> dict[str, Run]:
    """Every engine of a float and of a quantised graph that this machine can build, loaded."""
    graphs = {}
    for quantised in (False, True):
        made = model(arguments, arguments.layers, quantised)
        graphs[quantised] = export(made, folder / f"quantised-{quantised}", arguments.sequence, Classification)
    runs: dict[str, Run] = {}
    for kind in engines.installed():
        runtime = engines.runtime(kind)
        for quantised, graph in graphs.items():
            for precision in runtime.precisions(quantised):
                for variant in runtime.variants(precision):
                    several = len(runtime.variants(precision)) > 1
                    name = f"{kind} {precision}" + (f", rest {variant}" if several else "")
                    place = folder / name.replace(" ", "-")
                    place.mkdir()
                    runtime.build(graph, precision, place, variant)
                    engine = engines.load(place, arguments.threads)
                    runs[name] = lambda engine=engine: engine.infer(feed(arguments))  # type: ignore[misc]
    return runs


def student_runs(arguments: argparse.Namespace, folder: Path) -> dict[str, Run]:
    """The fastest kind of INT8 engine of a shallower model: what distillation and quantization bring together.

    OpenVINO's, but where its INT8 would saturate.
    """
    graph = export(model(arguments, arguments.student, True), folder, arguments.sequence, Classification)
    (folder / "engine").mkdir()
    kind = next(kind for kind in ("openvino", "onnxruntime") if engines.runtime(kind).precisions(True))
    engines.runtime(kind).build(graph, "int8", folder / "engine")
    engine = engines.load(folder / "engine", arguments.threads)
    return {f"{kind} int8, {arguments.student} layers": lambda: engine.infer(feed(arguments))}


def model(arguments: argparse.Namespace, layers: int, quantised: bool) -> BertForSequenceClassification:
    """A BERT of the asked shape with random weights, with quantisers and clipped GELU or without."""
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=arguments.hidden,
        num_hidden_layers=layers,
        num_attention_heads=arguments.heads,
        intermediate_size=arguments.intermediate,
        max_position_embeddings=max(512, arguments.sequence),
    )
    made = BertForSequenceClassification(config).eval()
    if quantised:
        quantise(made, feed(arguments))
    return made


def quantise(made: BertForSequenceClassification, batch: dict[str, np.ndarray]) -> None:
    """Put INT8 quantisers on the encoder's Linear modules and calibrate them on a part of a batch."""
    tensors = {name: torch.from_numpy(array[:4]) for name, array in batch.items()}
    quantizers.insert(made, Quantize(gelu_clip=10.0))
    quantizers.calibrate(made, lambda calibrated: calibrated(**tensors))


def feed(arguments: argparse.Namespace) -> dict[str, np.ndarray]:
    """A batch without padding, int64 [batch, sequence]."""
    ids = np.random.default_rng(0).integers(1000, 20000, (arguments.batch, arguments.sequence))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def bare_products(arguments: argparse.Namespace) -> dict[str, Run]:
    """The encoder's products with a weight and nothing else, float32 and INT8 with 32-bit sums, through oneDNN."""
    rows, hidden, intermediate = arguments.batch * arguments.sequence, arguments.hidden, arguments.intermediate
    shapes = [(hidden, hidden)] * 4 + [(hidden, intermediate), (intermediate, hidden)]  # [in, out]
    # weights [in, out] row by row, the layout that oneDNN's INT8 product is fastest with; sums written to memory in use,
    # because fresh pages from the kernel would cost half as much again
    floats = [(torch.randn(rows, k), torch.randn(k, n), torch.empty(rows, n)) for k, n in shapes]
    integers = [(random_int8(rows, k), random_int8(k, n), torch.empty(rows, n, dtype=torch.int32)) for k, n in shapes]
    bare: dict[str, Run] = {"bare float32 products": lambda: repeat(torch.mm, floats, arguments.layers)}
    if not int8_saturates():  # else oneDNN multiplies them one by one
        bare["bare INT8 products"] = lambda: repeat(torch._int_mm, integers, arguments.layers)
    return bare


def random_int8(*shape: int) -> torch.Tensor:
    """Every value that a symmetric quantiser gives."""
    return torch.randint(-127, 128, shape, dtype=torch.int8)


def repeat(multiply: Callable, operands: list[tuple[torch.Tensor, ...]], layers: int) -> None:
    """Every product of a layer, as often as there are layers."""
    for _ in range(layers):
        for left, right, result in operands:
            multiply(left, right, out=result)


def measure(runs: dict[str, Run], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median milliseconds of each, all taking turns in every round."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            settle(run)
            start = clock()
            run()
            times[name].append((clock() - start) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def settle(run: Run) -> None:
    """Call until the threads of what ran before no longer spin, and the caches hold what this one needs."""
    end = time.perf_counter() + SETTLING_S
    while time.perf_counter() < end:
        run()


def show(medians: dict[str, float], arguments: argparse.Namespace) -> None:
    """Print one line per engine, and the rate of its products with a weight."""
    rows, hidden, intermediate = arguments.batch * arguments.sequence, arguments.hidden, arguments.intermediate
    operations = 2 * rows * arguments.layers * (4 * hidden * hidden + 2 * hidden * intermediate)
    sixteen = medians.get("openvino bf16")
    table = Table(
        title=f"{arguments.layers} layers of width {hidden}, batch {arguments.batch} x {arguments.sequence} tokens, "
        f"{arguments.threads} threads, {arguments.clock} clock, {', '.join(cpu_features())}"
    )
    for column in ("", "median ms", f"speed over {BASE}", "over bf16", "GOP/s", "of the bare INT8 rate"):
        table.add_column(column, justify="right" if column else "left")
    for name, ms in sorted(medians.items(), key=lambda item: -item[1]):
        table.add_row(
            name,
            f"{ms:.1f}",
            f"{medians[BASE] / ms:.2f}x",
            f"{sixteen / ms:.2f}x" if sixteen else "no bf16 here",
            *(("", "") if name.endswith("layers") else _rates(operations, ms, medians)),
        )
    Console(width=120).print(table)


def _rates(operations: int, ms: float, medians: dict[str, float]) -> tuple[str, str]:
    bare = medians.get("bare INT8 products")
    return f"{operations / ms / 1e6:.0f}", f"{bare / ms:.0%}" if bare else "not measured"


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main()
