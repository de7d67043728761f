"""Result rows from what the steps left on disk: one per seed and precision, and one over all seeds."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from optkit.errors import InputError
from optkit.recipe import Recipe
from optkit.report.stages import loss_by_stage
from optkit.results import Row, judge
from optkit.stages import BASELINE
from optkit.store import RECORD, key_at, read_json, read_record, write_json
from optkit.validation.accuracy import paired_bootstrap
from optkit.validation.evidence import BESIDE, EVIDENCE, SCORES, read_scores

if TYPE_CHECKING:  # it brings torch, without which `optkit compare` starts quickly
    from optkit.tasks.base import Task

log = logging.getLogger(__name__)
RESULT = "result.json"
FP32, SIXTEEN_BIT = "fp32", ("bf16", "fp16")


def rows_of(recipe: Recipe, task: "Task", seed: int, folder: Path, baseline: Path) -> list[Row]:
    """Judged rows of a recipe's validated folder, the slowest precision first.

    Args:
        recipe: which the folder holds.
        task: it was run on.
        seed: of the run.
        folder: the recipe's, `checkpoints/<task>/<recipe>/seed-<n>`.
        baseline: the FP32 baseline's of the same seed.
    """
    evidence = read_json(folder / "served" / EVIDENCE)
    scores, reference = _scores(folder), _scores(baseline)[FP32]
    found = []
    for precision, own in evidence["precisions"].items():
        engine = folder / "engines" / precision
        row = Row(
            recipe=recipe.name,
            task=task.name,
            seed=seed,
            metric=task.metric,
            value=float(scores[precision].mean()),
            baseline=float(reference.mean()),
            delta=float(scores[precision].mean() - reference.mean()),
            delta_ci95=list(paired_bootstrap(scores[precision], reference)),
            precision=precision,
            engine=read_json(engine / "engine.json")["kind"],
            size_bytes=sum(path.stat().st_size for path in engine.rglob("*") if path.is_file()),
            rungs=own["rungs"],
            scores=own["scores"],
            served_by=evidence["served_by"],
            max_drop=recipe.max_drop,
            evidence=_evidence(folder, precision),
            stages=loss_by_stage([folder], precision),
            **_architecture(folder),
            **_speed(evidence["performance"], precision),
        )
        row.verdict, row.reasons = judge(row)
        found.append(row)
    return found


def write(rows: Sequence[Row], folder: Path) -> None:
    """Keep the rows beside what they are about."""
    write_json(folder / RESULT, [row.as_dict() for row in rows])


def read(root: Path, task: str) -> list[Row]:
    """All rows of a task that belong to the baselines as they are now; several seeds of a recipe are pooled too.

    Args:
        root: the folder `checkpoints/`.
        task: its name.

    Raises:
        InputError: no recipe of that task has been run.
    """
    found: dict[Path, list[Row]] = {}
    for path in sorted((root / task).glob(f"*/seed-*/{RESULT}")):
        if _is_current(path.parent):
            found[path.parent] = [Row(**row) for row in read_json(path)]
        else:
            log.warning("%s: left out, its baseline or its engines have changed since; run the recipe again", path.parent)
    if not found:
        raise InputError(f"task {task!r}: no results in {root / task}; first: optkit run RECIPE… --task {task}")
    rows = [row for own in found.values() for row in own]
    groups: dict[tuple[str, str], dict[Path, Row]] = {}
    for folder, own in found.items():
        for row in own:
            groups.setdefault((row.recipe, row.precision), {})[folder] = row
    return _ranked([*rows, *(pool(group) for group in groups.values() if len(group) > 1)])


def pool(group: Mapping[Path, Row]) -> Row:
    """One row over several seeds of a recipe and precision, its interval over examples and seeds.

    Args:
        group: {the recipe's folder of a seed: its row}.
    """
    rows = list(group.values())
    own = np.stack([_scores(folder)[rows[0].precision] for folder in group])
    reference = np.stack([_scores(_baseline_of(folder))[FP32] for folder in group])
    averaged = ("value", "baseline", "delta", "rungs", "scores", "latency_ms", "throughput", "speedup")
    row = replace(rows[0], **{name: _mean([getattr(row, name) for row in rows]) for name in averaged})
    row.seed, row.seeds = None, [row.seed for row in rows if row.seed is not None]
    if row.speedup_vs_16bit:
        row.speedup_vs_16bit = _mean([row.speedup_vs_16bit for row in rows])
    row.delta_ci95 = list(paired_bootstrap(own, reference))
    row.stages = loss_by_stage(list(group), row.precision)
    row.verdict, row.reasons = judge(row)
    return row


def _ranked(rows: list[Row]) -> list[Row]:
    """The baseline first, then the fastest first."""
    return sorted(rows, key=lambda row: (row.recipe != BASELINE, _geometric_mean(row.speedup) * -1, row.seed or 0))


def _baseline_of(folder: Path) -> Path:
    return folder.parent.parent / BASELINE / folder.name


def _is_current(folder: Path) -> bool:
    """Whether the result was measured on the engines, and beside the baseline, that are there now."""
    depends_on = read_record(folder / "served")["depends_on"]
    places = {"engines": folder / "engines", "baseline": _baseline_of(folder) / "engines"}
    return all((at / RECORD).is_file() and key_at(at) == depends_on[name] for name, at in places.items())


def _scores(folder: Path) -> dict[str, np.ndarray]:
    return read_scores(folder / "served" / SCORES)


def _architecture(folder: Path) -> dict[str, Any]:
    stages = [stage["technique"] for stage in read_json(folder / "recipe.json")]
    layers = read_json(folder / "config.json")["num_hidden_layers"]
    return {"layers": layers, "sparsity": "2:4" if "sparsify" in stages else None}


def _evidence(folder: Path, precision: str) -> dict[str, Any]:
    audit = read_json(folder / "graph" / "audit.json")
    conversion = read_json(folder / "engines" / "conversion.json")
    chosen = next(c for c in conversion["candidates"] if c["chosen"] and c["precision"] == precision)
    return {**chosen["evidence"], "encoder_gemms": audit["encoder_gemms"], "covered_gemms": audit["covered_gemms"]}


def _speed(performance: Mapping[str, Mapping[str, Mapping[str, float]]], precision: str) -> dict[str, Any]:
    own = performance[precision]
    prefix = BESIDE if any(name.startswith(BESIDE) for name in performance) else ""
    beside = {name.removeprefix(prefix): values for name, values in performance.items() if name.startswith(prefix)}
    sixteen_bit = next((beside[name] for name in SIXTEEN_BIT if name in beside), None)
    return {
        "latency_ms": {size: {p: values[p] for p in ("p50", "p95", "p99")} for size, values in own.items()},
        "throughput": {size: values["throughput"] for size, values in own.items()},
        "speedup": _ratio(beside[FP32], own),
        "speedup_vs_16bit": _ratio(sixteen_bit, own) if sixteen_bit else None,
    }


def _ratio(other: Mapping[str, Mapping[str, float]], own: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {size: round(other[size]["p50"] / values["p50"], 3) for size, values in own.items()}


def _geometric_mean(ratios: Mapping[str, float]) -> float:
    return float(np.exp(np.mean(np.log(list(ratios.values())))))


def _mean(values: list[Any]) -> Any:
    """Mean of numbers, key by key where they are dictionaries."""
    if isinstance(values[0], dict):
        return {key: _mean([value[key] for value in values]) for key in values[0]}
    return fmean(values)
