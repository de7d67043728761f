"""`optkit sensitivity`: what each Linear module of a recipe's model, and each layer, costs when it alone is INT8, or 2:4."""

import csv
import io
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from optkit.compression import checkpoint
from optkit.compression.quantize import Quantize
from optkit.compression.sparsify import Sparsify
from optkit.core import atomic, step_cache
from optkit.core.code_version import code_version
from optkit.core.errors import InputError
from optkit.core.json_door import read_json
from optkit.core.plain_text import plain, table
from optkit.core.step_cache import content_at
from optkit.engines import registry as engines
from optkit.engines import side_by_side
from optkit.engines.record import read_record
from optkit.evaluation.artifacts import engine_folders
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.build_engines import converted
from optkit.pipeline.steps.train import context_of, trained, with_stages
from optkit.recipe.recipe import Recipe
from optkit.tasks.collate import random_batches

log = logging.getLogger(__name__)
FILE = "sensitivity.json"
FORMATS = ("table", "json", "csv")
BATCHES = (1, 32)
SECONDS = 2.0
"""How long each engine is timed at each batch size."""
WORDS = {"quantize": "INT8", "sparsify": "2:4"}
_USUAL = {"quantize": Quantize(calibrator="kl"), "sparsify": Sparsify(criterion="sparsegpt")}
"""What is tried of a technique that a recipe has not."""
_UNTRAINED = {"epochs": 0, "steps": None, "representation_epochs": 0, "representation_steps": None}


@dataclass(frozen=True)
class Cost:
    """What a part of the encoder costs when it alone is changed, and what leaving it as it is would cost."""

    technique: str
    model: str
    """Name of the recipe whose model it is a part of."""
    part: str
    """Name of a Linear module, `layer <n>`, or `all`."""
    divergence: float
    unit: str
    """What the divergence is of: "KL (nats)", or "squared distance" where a task has no probabilities."""
    share: float
    """Share of the multiply-adds of the modules that the technique can change."""
    rounding: float
    """Divergence that may be nothing but FP32's rounding."""
    lost_ms: dict[str, float] | None
    """Time that leaving the part out costs in ms, by batch size: its share of what all modules together save, measured with
    engines side by side. None where that is not measured: no kernel of a CPU is faster by 2:4."""

    @property
    def is_module(self) -> bool:
        return self.part != "all" and not self.part.startswith("layer ")


def measure(recipe: Recipe, spec: RunSpec, examples: int, speed: bool = True) -> list[Cost]:
    """Measure both techniques where the recipe applies them: INT8 on the model before its quantization, 2:4 on that before
    its pruning. A technique that the recipe has not is tried by its usual settings.

    Args:
        recipe: to look at; what it starts from is trained if it is not finished.
        spec: what it is run on.
        examples: number of training examples to compare answers on.
        speed: whether to build the two engines by which the time that leaving a module out costs is estimated.

    Raises:
        InputError: a technique of the recipe does not apply to the model, or none does.
    """
    found: list[Cost] = []
    for technique, usual in _USUAL.items():
        stage = next((one for one in recipe.stages if one.technique == technique), usual)
        try:
            found += _measured(recipe, stage, spec, examples, speed)  # type: ignore[arg-type]
        except InputError as error:
            if recipe.has(technique):
                raise
            log.warning("%s is left out, it does not apply to this model: %s", WORDS[technique], error)
    if not found:
        raise InputError(f"recipe {recipe.name!r}: neither INT8 nor 2:4 applies to its model")
    return found


def _measured(recipe: Recipe, stage: Quantize | Sparsify, spec: RunSpec, examples: int, speed: bool) -> list[Cost]:
    """What one technique costs, from disk if it was measured before."""
    from optkit.compression import sensitivity  # it brings Model Optimizer, which takes seconds

    before = [one for one in recipe.stages if one.order < stage.order]
    start = with_stages(before, recipe.training, spec)
    if start.is_half:
        log.warning(
            "%s: %s makes a model that answers nothing before a later stage trains it: costs are of its chance answers",
            *(recipe.name, before[-1].technique),
        )
    folder = trained(start, spec)
    lost = _lost_ms(start, stage, spec) if speed and isinstance(stage, Quantize) else None
    place = folder / f"sensitivity-{stage.technique}"

    def make(unfinished: Path) -> None:
        log.info("%s: %s, one module at a time", start.name, WORDS[stage.technique])
        loaded = checkpoint.load(folder, spec.task)
        context = context_of(start, spec, loaded)
        trial = stage.one_by_one(loaded, context)
        groups = {**sensitivity.by_layer(trial.model, trial.names), **sensitivity.singles(trial.names)}
        measured = sensitivity.measured(trial, list(context.feeds(examples)), spec.task, groups)
        atomic.write_json(unfinished / FILE, asdict(measured))

    depends_on = {
        "checkpoint": content_at(folder),
        "stage": stage.model_dump(mode="json"),
        "examples": examples,
        "code": code_version(sensitivity.__name__, __name__, *spec.modules(recipe)),
    }
    step_cache.step(place, depends_on, make)
    unit = sensitivity.distance_name(spec.task)
    told = read_json(place / FILE, sensitivity.Measured)
    return [
        Cost(
            *(stage.technique, start.name, one.part, one.divergence, unit, one.share),
            *(told["rounding"], _of_share(lost, one.share)),
        )
        for one in (sensitivity.Effect(**own) for own in told["effects"])
    ]


def _of_share(lost: dict[str, float] | None, share: float) -> dict[str, float] | None:
    return None if lost is None else {size: round(share * ms, 4) for size, ms in lost.items()}


def _lost_ms(start: Recipe, stage: Quantize, spec: RunSpec) -> dict[str, float]:
    """How much faster all modules together are in INT8, in ms by batch size: engines of one kind, side by side.

    The float one computes in the type that what stays float has in the INT8 one.
    """
    untrained = stage.model_copy(update={**_UNTRAINED, "keep_float": ()}).as_read()
    quantised = with_stages((*start.stages, untrained), start.training, spec)
    both = engine_folders(converted(start, spec)), engine_folders(converted(quantised, spec))
    wanted = "bf16" if read_record(both[1]["int8"])["variant"] == "bf16" else "fp32"
    beside = {"float": engines.load(both[0].get(wanted, both[0]["fp32"])), "int8": engines.load(both[1]["int8"])}
    loaded = checkpoint.load(spec.folder(start), spec.task)
    features, found = spec.features("dev", loaded.tokenizer), {}
    for size in BATCHES:
        feeds = random_batches(features, spec.collator(loaded.tokenizer), size)
        ms = side_by_side.latency_ms({name: (engine, feeds) for name, engine in beside.items()}, SECONDS)
        found[str(size)] = ms["float"] - ms["int8"]
    return found


def render(costs: Sequence[Cost], form: str) -> str:
    """Render costs as a table for people, JSON or CSV.

    Raises:
        InputError: no such format.
    """
    if form not in FORMATS:
        raise InputError(f"--format {form}: expected one of {', '.join(FORMATS)}")
    if form == "table":
        return _table(costs)
    if form == "json":
        return json.dumps([asdict(cost) for cost in costs], indent=2) + "\n"
    lines = [
        {**asdict(cost), **{f"lost_ms.{size}": (cost.lost_ms or {}).get(str(size), "") for size in BATCHES}}
        for cost in costs
    ]
    text = io.StringIO()
    writer = csv.DictWriter(
        text, [name for name in lines[0] if name != "lost_ms"], extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _table(costs: Sequence[Cost]) -> str:
    parts: list[object] = []
    for technique, word in WORDS.items():
        own = [cost for cost in costs if cost.technique == technique]
        if not own:
            continue
        timed = own[0].lost_ms is not None
        columns = ["part", own[0].unit, "of all modules' sum", "multiply-adds"]
        columns += [f"ms@{size} if left float" for size in BATCHES] if timed else []
        made = table(columns, left=("part",), title=f"{own[0].model}: each part alone in {word}")
        total = sum(cost.divergence for cost in own if cost.is_module) or 1.0
        for cost in own:
            times = [f"{(cost.lost_ms or {}).get(str(size), 0):.3f}" for size in BATCHES] if timed else []
            made.add_row(cost.part, f"{cost.divergence:.3g}", f"{cost.divergence / total:.1%}", f"{cost.share:.1%}", *times)
        parts.append(made)
        if max(cost.divergence for cost in own) <= own[0].rounding:
            parts.append(
                f"These say nothing: no part moves the answers by more than FP32 may round them, {own[0].rounding:.2g}. Has "
                "the model learned anything?"
            )
    if any(cost.lost_ms for cost in costs):
        parts.append(
            "ms: a part's share of what all modules together save in INT8, by two engines measured side by side here."
        )
    return plain(*parts)  # type: ignore[arg-type]
