"""What a training step costs: FP32, sparse, quantization-aware, and distilled from stored logits, as ratios within one run.

    python benchmarks/training.py --batch 32 --sequence 32 --rounds 20

On a CPU also what `optkit.training.cpu_kernels` brings over torch's own kernels. The model has the shape of MiniLM-L6 and
random weights. Steps take turns, so that a drifting machine moves all alike; the ratio of each pair of neighbours is taken,
and the median of the ratios is printed.
"""

import copy
import time
from contextlib import ExitStack
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers import BertConfig, BertForSequenceClassification

from optkit.compression import fake_quantization, pruning, quantizers
from optkit.compression.quantize import Quantize
from optkit.models import two_to_four
from optkit.models.families import prunable
from optkit.recipe.training import Training
from optkit.tasks.classification import Classification
from optkit.training import cpu_kernels
from optkit.training.loop import autocast_type
from optkit.training.losses import Batch, Loss, stored, task_loss, with_teacher

TYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Step:
    """One kind of training step on one fixed batch."""

    def __init__(self, model: torch.nn.Module, loss: Loss, batch: Batch, precision: str) -> None:
        self.model, self.loss, self.batch = model.train(), loss, batch
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        self.precision = precision

    def run_ms(self) -> float:
        """Milliseconds of forward, backward and update."""
        device = self.batch.inputs["input_ids"].device
        start = time.perf_counter()
        with torch.autocast(device.type, dtype=TYPES[self.precision], enabled=self.precision != "fp32"):
            loss = self.loss(self.model, self.batch)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) * 1e3


def main(
    batch: int = 32,
    sequence: int = 32,
    layers: int = 6,
    hidden: int = 384,
    rounds: int = 20,
    precision: Annotated[str, typer.Option(help="fp32, bf16, fp16 or auto, the device's own")] = "fp32",
) -> None:
    """Print the table."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = autocast_type(Training()) if precision == "auto" else precision
    config = BertConfig(
        num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=hidden // 32, intermediate_size=4 * hidden
    )
    float_model = BertForSequenceClassification(config).to(device)
    feed = {"input_ids": torch.randint(5, config.vocab_size, (batch, sequence), device=device)}
    feed["attention_mask"] = torch.ones_like(feed["input_ids"])
    data = Batch(feed, {"labels": torch.randint(0, 2, (batch,), device=device)}, range(batch))
    quantised = copy.deepcopy(float_model)
    quantizers.insert(quantised, Quantize(gelu_clip=10.0))
    quantizers.calibrate(quantised, lambda model: model(**feed))
    logits = np.random.default_rng(0).normal(size=(batch, 2)).astype(np.float32)
    plain, teacher = task_loss(Classification), with_teacher(Classification, stored(logits, Classification), 2.0, 0.1)
    sparse = copy.deepcopy(float_model)
    linears = prunable(sparse)
    pruning.prune(sparse, "magnitude", lambda model: None)
    steps = {
        "plain, torch's kernels": Step(copy.deepcopy(float_model), plain, data, precision),
        "plain": Step(float_model, plain, data, precision),
        "sparse": Step(sparse, plain, data, precision),
        "QAT": Step(quantised, plain, data, precision),
        "distillation": Step(copy.deepcopy(float_model), teacher, data, precision),
        "QAT + distillation": Step(copy.deepcopy(quantised), teacher, data, precision),
    }
    with ExitStack() as stack:
        stack.enter_context(two_to_four.held(linears))
        for step in list(steps.values())[1:] if device == "cpu" else ():
            stack.enter_context(cpu_kernels.fast(step.model))
            stack.enter_context(fake_quantization.fast(quantizers.quantisers(step.model).values()))
        times = measure(steps, rounds)
    report(times, f"{device}, {precision}, batch {batch} × {sequence}, {layers} layers of {hidden}")


def measure(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Milliseconds by kind of step, the kinds taking turns, after three rounds of warm-up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 3):
        for name, step in steps.items():
            elapsed = step.run_ms()
            if number >= 3:
                times[name].append(elapsed)
    return times


def report(times: dict[str, list[float]], title: str) -> None:
    """Print medians and the medians of the pairwise ratios to the plain step."""
    table = Table(title=title)
    for column in ("step", "median ms", "ratio to plain"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for name, values in times.items():
        ratio = median(own / plain for own, plain in zip(values, times["plain"], strict=True))
        table.add_row(name, f"{median(values):.1f}", f"{ratio:.3f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
