"""What stays float by `Quantize(keep_float="auto")` and by Model Optimizer's `auto_quantize`, under one budget.

    python benchmarks/auto_quantize.py checkpoints/sst2/baseline_fp32/seed-0 --task sst2 --data DIR --budget 0.1

All choose on the same training examples. What they chose is compared in one calibrated model, so with the same scales, on
other training examples: how far the answers move from the float model's.
"""

import copy
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import modelopt.torch.quantization as mtq
import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel

from optkit.compression import checkpoint, kept, sensitivity
from optkit.compression.context import Context
from optkit.compression.quantize import Quantize
from optkit.models.families import encoder_linears
from optkit.models.loading import LoadedModel
from optkit.recipe.training import Training
from optkit.tasks.base import Feed, Task
from optkit.tasks.collate import Collator
from optkit.tasks.registry import load

METHODS = ("gradient", "kl_div")
FLOAT_BITS, INT8_BITS = 16, 8


def by_modelopt(model: PreTrainedModel, feeds: Sequence[Feed], task: Task, budget: float, method: str) -> list[str]:
    """Return the Linear modules that Model Optimizer leaves float; of query, key and value it leaves all or none.

    Args:
        model: float; it is not changed.
        feeds: inputs of the training examples.
        task: gives the logits.
        budget: share of the weights that may stay in 16 bits.
        method: one of `METHODS`.
    """
    made, reference = copy.deepcopy(model).train(method == "gradient"), copy.deepcopy(model).eval()
    linears = encoder_linears(made)
    others = [name for name, one in made.named_modules() if isinstance(one, torch.nn.Linear) and name not in linears]

    def forward(some: Any, feed: Feed) -> torch.Tensor:
        return task.logits(some(**{name: torch.from_numpy(array) for name, array in feed.items()})).float()

    def loss(logits: torch.Tensor, feed: Feed) -> torch.Tensor:
        with torch.no_grad():
            target = forward(reference, feed).log_softmax(-1)
        return torch.nn.functional.kl_div(logits.log_softmax(-1), target, log_target=True, reduction="batchmean")

    bits = budget * FLOAT_BITS + (1 - budget) * INT8_BITS
    found, _ = mtq.auto_quantize(
        made, {"effective_bits": bits}, [mtq.INT8_DEFAULT_CFG], feeds, forward, loss if method == "gradient" else None,
        disabled_layers=others, num_calib_steps=len(feeds), num_score_steps=len(feeds), method=method,
    )  # fmt: skip
    return [name for name, one in encoder_linears(found).items() if not one.weight_quantizer.is_enabled]


def context_of(loaded: LoadedModel, task: Task, rows: range, folder: Path) -> Context:
    """Return training examples of some rows."""
    features = task.encode("train", loaded.tokenizer).select(rows)
    collator = Collator.of(task, loaded.tokenizer)
    return Context(task, features, collator, Training(), 0, folder, teacher_logits=None, teacher_model=None)  # type: ignore[arg-type]


def main(
    folder: Annotated[Path, typer.Argument(help="checkpoint of a float model")],
    task: str,
    data: Path | None = None,
    budget: Annotated[float, typer.Option(help="share of the encoder's weights that may stay float")] = 0.1,
    examples: Annotated[int, typer.Option(help="training examples to compare on, apart from those to choose on")] = 2000,
) -> None:
    """Print the table."""
    own = load(task, data)
    loaded = checkpoint.load(folder, own)
    half = len(own.examples("train")) // 2
    chosen_on, compared_on = (context_of(loaded, own, rows, folder) for rows in (range(half), range(half, 2 * half)))
    trial = Quantize(calibrator="kl").one_by_one(loaded, chosen_on)
    feeds = list(chosen_on.feeds(sensitivity.CHECKED * sensitivity.EXAMPLES))[:: sensitivity.CHECKED]
    left, seconds = {"none": list[str]()}, {"none": 0.0}
    start = time.perf_counter()
    left["optkit"] = sensitivity.chosen(trial, chosen_on, sensitivity.gains, "keep_float", "float", budget)[0]
    seconds["optkit"] = time.perf_counter() - start
    for method in METHODS:
        start = time.perf_counter()
        left[f"Model Optimizer, {method}"] = by_modelopt(loaded.model, feeds, own, budget, method)
        seconds[f"Model Optimizer, {method}"] = time.perf_counter() - start
    int8 = {name: [one for one in trial.names if one not in names] for name, names in left.items()}
    table = Table(
        "chosen by", "left float", "multiply-adds", sensitivity.distance_name(own), "s", title="INT8 but for what is left"
    )
    for effect in sensitivity.effects(trial, list(compared_on.feeds(examples)), own, int8):
        names = left[effect.part]
        share = kept.share(encoder_linears(loaded.model), names)
        table.add_row(
            effect.part, ", ".join(names), f"{share:.1%}", f"{effect.divergence:.5f}", f"{seconds[effect.part]:.0f}"
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    typer.run(main)
