"""The ladder: the same examples at every rung on the way to the server, each rung compared with the one before.

The rungs are the model in PyTorch with its quantisers off (`float`) and on (`pytorch`), the ONNX graph as written, the
engine in this process, and the engine behind the server. A model without quantisers has no `float` rung. Whatever
changes an answer on its way shows at the rung that changes it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from optkit.core.errors import GateError
from optkit.engines import registry as engines
from optkit.evaluation.difference import difference, signal
from optkit.graph import reference
from optkit.models.loading import LoadedModel, inference
from optkit.tasks.base import Feed, Prediction, Task
from optkit.tasks.collate import BATCH_SIZE, Collator, run

if TYPE_CHECKING:
    from datasets import Dataset

Logits = list[np.ndarray]
_NUDGED = 128
"""Features by which it is measured what rounding alone moves."""
_NUDGE = 2.0**-19
"""By how much, of each result."""


@dataclass(frozen=True)
class Rung:
    """Answers of one rung."""

    name: str
    logits: Logits
    """Logits, one array per feature, without padding."""
    predictions: list[Prediction]
    """Predictions, one per example."""
    scores: dict[str, float]
    """Every metric of the task."""


def before_engines(
    task: Task, loaded: LoadedModel, graph: Path, features: "Dataset", collator: Collator
) -> dict[str, Logits]:
    """Logits of every feature at the rungs that all engines of a model share: `float`, `pytorch` and `graph`."""
    infer = inference(loaded.model, task)
    logits = {}
    if _quantisers(loaded.model):
        with quantisers_off(loaded.model):
            logits["float"] = run(infer, features, BATCH_SIZE, collator, "scoring in PyTorch without quantisers")
    logits["pytorch"] = run(infer, features, BATCH_SIZE, collator, "scoring in PyTorch")
    written = partial(reference.infer, reference.load(graph))
    logits["graph"] = run(written, features, BATCH_SIZE, collator, "scoring the graph as written")
    return logits


def redrawn(
    task: Task, loaded: LoadedModel, features: "Dataset", collator: Collator, shared: Mapping[str, Logits]
) -> dict[str, float]:
    """How far rounding in float32 alone moves the logits of a quantised model, over their spread; empty for a float one.

    Other orders of the same sums differ by some 2^-20. That turns a value between two steps of a scale over to the other
    one, a whole step away, and the layers above carry it on: in some models it draws hardly any of quantization's noise
    anew, in others nearly all. So it is measured: every Linear's results are changed by as little, on some of the features.

    Args:
        shared: what `before_engines` gave.

    Returns:
        `redrawn_mean` and `redrawn_largest`, over the mean absolute deviation of all logits.
    """
    if "float" not in shared:
        return {}
    chosen = np.unique(np.linspace(0, len(features) - 1, min(_NUDGED, len(features))).astype(int)).tolist()
    infer = inference(loaded.model, task)
    with _nudged(loaded.model):
        found = run(infer, features.select(chosen), BATCH_SIZE, collator)
    moved = difference(found, [shared["pytorch"][one] for one in chosen], signal(shared["pytorch"])).as_dict()
    return {"redrawn_mean": moved["relative_mean"], "redrawn_largest": moved["relative_largest"]}


@contextmanager
def _nudged(model: PreTrainedModel) -> Iterator[None]:
    """The model as it computes where all sums are rounded otherwise; the same each time."""
    generator = torch.Generator(model.device).manual_seed(0)

    def nudge(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(output.shape, generator=generator, device=output.device)
        return output * (1 + _NUDGE * noise)

    hooks = [one.register_forward_hook(nudge) for one in model.modules() if isinstance(one, nn.Linear)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def at_engine(folder: Path, features: "Dataset", collator: Collator) -> Logits:
    """Logits of every feature by an engine in this process."""
    infer: Callable[[Feed], np.ndarray] = engines.load(folder).infer
    return run(infer, features, BATCH_SIZE, collator, f"scoring the {folder.name} engine")


def rungs(task: Task, features: "Dataset", logits: Mapping[str, Logits]) -> list[Rung]:
    """Predictions and scores of every rung.

    Raises:
        GateError: a logit is not finite; the rung is named.
    """
    found = []
    for name, own in logits.items():
        try:
            predictions = task.predict(features, own)
        except GateError as error:
            raise GateError(f"rung {name!r}: {error}") from error
        found.append(Rung(name, own, predictions, task.score(predictions)))
    return found


def climb(task: Task, ladder: Sequence[Rung]) -> dict[str, dict[str, float]]:
    """Return {rung: its metric, and from the second on the differences from the rung before, and the flips}."""
    found: dict[str, dict[str, float]] = {ladder[0].name: {"value": ladder[0].scores[task.metric]}}
    for before, rung in pairwise(ladder):
        found[rung.name] = {
            "value": rung.scores[task.metric],
            **difference(rung.logits, before.logits).as_dict(),
            "flips": len(flipped(task, rung, before)),
        }
    return found


def flipped(task: Task, rung: Rung, before: Rung) -> list[int]:
    """The examples that two rungs answer differently."""
    pairs = zip(rung.predictions, before.predictions, strict=True)
    return [example for example, (ours, theirs) in enumerate(pairs) if not task.same(ours, theirs)]


def worst(task: Task, features: "Dataset", ladder: Sequence[Rung], most: int = 50) -> list[dict[str, Any]]:
    """The examples that change most on the way: first those whose prediction flips, then by the largest difference.

    Returns:
        For each: `example` (its row), `row` (text and answer), `flips` (rungs that answer otherwise than the one
        before), `moved` ({rung: largest difference of a logit from the rung before}), `predictions` by rung, and
        `logits` by rung where a feature has one row of them.
    """
    rows = task.examples("dev")
    moved = {rung.name: _moved(rung, before, features, len(rows)) for before, rung in pairwise(ladder)}
    flips = {rung.name: set(flipped(task, rung, before)) for before, rung in pairwise(ladder)}
    any_flip = np.isin(np.arange(len(rows)), list(set().union(*flips.values())))
    order = np.lexsort((-np.max(list(moved.values()), axis=0), ~any_flip))[:most]
    of_example = {example: index for index, example in enumerate(features["example"][:])}
    return [
        {
            "example": (example := int(number)),
            "row": task.readable(rows[example]),
            "flips": [name for name, examples in flips.items() if example in examples],
            "moved": {name: float(f"{values[example]:.4g}") for name, values in moved.items()},
            "predictions": {rung.name: task.told(rung.predictions[example]) for rung in ladder},
            **({"logits": _rounded(ladder, of_example[example])} if _has_readable_logits(task) else {}),
        }
        for number in order
    ]


@contextmanager
def quantisers_off(model: PreTrainedModel) -> Iterator[None]:
    """The model as it computes in float; its quantisers are given back afterwards."""
    enabled = _quantisers(model)
    for quantiser in enabled:
        quantiser.disable()
    try:
        yield
    finally:
        for quantiser in enabled:
            quantiser.enable()


def _quantisers(model: PreTrainedModel) -> list[Any]:
    """Model Optimizer's enabled quantisers, known by their name, as its import takes seconds."""
    parts = (module for name, module in model.named_modules() if name.endswith("_quantizer"))
    return [module for module in parts if getattr(module, "is_enabled", False)]


def _moved(rung: Rung, before: Rung, features: "Dataset", examples: int) -> np.ndarray:
    """Largest difference of a logit, [examples]; of all windows where a passage has several."""
    pairs = zip(rung.logits, before.logits, strict=True)
    of_feature = [np.abs(ours.astype(np.float64) - theirs).max() for ours, theirs in pairs]
    moved, owners = np.zeros(examples), np.array(features["example"][:])
    np.maximum.at(moved, owners[owners >= 0], np.array(of_feature)[owners >= 0])
    return moved


def _has_readable_logits(task: Task) -> bool:
    return task.readable_logits and not task.per_token()


def _rounded(ladder: Sequence[Rung], feature: int) -> dict[str, list[float]]:
    """The logits of a feature by rung."""
    return {rung.name: [round(float(value), 4) for value in rung.logits[feature]] for rung in ladder}
