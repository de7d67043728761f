"""Result rows from what the steps left on disk: one per seed and precision, and one over all seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from optkit.core.errors import InputError
from optkit.core.json_door import read_json
from optkit.core.step_cache import verify
from optkit.engines import conversion_file
from optkit.evaluation import changes, doubts
from optkit.evaluation.artifacts import (
    ANSWERS,
    BESIDE,
    EVIDENCE,
    KEPT,
    SCORES,
    read_groups,
    read_of_engine,
    read_scores,
)
from optkit.evaluation.bootstrap import paired_bootstrap
from optkit.evaluation.gate import judge
from optkit.evaluation.results import VERDICTS, Row
from optkit.models import checkpoint_remarks
from optkit.models.families import depth
from optkit.pipeline import load_summary, projects, refusals, result_file
from optkit.pipeline.loss_by_stage import loss_by_stage
from optkit.pipeline.result_file import RESULT, baseline_of
from optkit.pipeline.row_choice import speed_among
from optkit.recipe.recipe import Recipe
from optkit.recipe.stage import BASELINE
from optkit.tasks.outcomes import value

if TYPE_CHECKING:  # it brings torch, without which `optkit compare` starts quickly
    from optkit.tasks.base import Task

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
    against = read_json(baseline / "served" / EVIDENCE)["precisions"][FP32]
    kept, answers = (read_of_engine(baseline / "served" / name, FP32) for name in (KEPT, ANSWERS))
    groups, found = read_groups(folder / "served"), []
    for precision, own in evidence["precisions"].items():
        engine = folder / "engines" / precision
        own_kept, own_answers = (read_of_engine(folder / "served" / name, precision) for name in (KEPT, ANSWERS))
        row = Row(
            recipe=recipe.name,
            task=task.name,
            seed=seed,
            metric=task.metric,
            value=value(scores[precision], task.metric),
            baseline=value(reference, task.metric),
            delta=value(scores[precision], task.metric) - value(reference, task.metric),
            delta_ci95=list(paired_bootstrap(scores[precision], reference, task.metric, groups.get("outcomes"))),
            precision=precision,
            engine=read_json(engine / "engine.json")["kind"],
            size_bytes=sum(path.stat().st_size for path in engine.rglob("*") if path.is_file()),
            rungs={rung: values["value"] for rung, values in own["ladder"].items() if rung != "float"},
            ladder=own["ladder"],
            invariance=own["invariance"],
            degenerate=doubts.of_engines(own, None if recipe.is_baseline and precision == FP32 else against),
            scores=own["scores"] | task.beside(own_kept, kept),
            examples=len(reference),
            units=task.scored_units,
            served_by=evidence["served_by"],
            machine=evidence.get("machine", ""),
            groups=len(np.unique(groups.get("outcomes", ()))),
            max_drop=recipe.max_drop,
            max_kl=recipe.max_kl,
            max_flips=recipe.max_flips,
            min_speedup=recipe.min_speedup,
            max_p99_ms=recipe.max_p99_ms,
            workload=[list(shape) for shape in recipe.workload],
            evidence=_evidence(folder, precision),
            remarks=[*checkpoint_remarks.read(folder), *conversion_file.faster_elsewhere(folder / "engines", precision)],
            stages=loss_by_stage([folder], precision, task.metric),
            layers=depth(read_json(folder / "config.json")),
            sparsity=recipe.sparsity,
            **changes.summary([own_answers], [answers], groups.get("examples")),
            **_speed(evidence["performance"], precision),
        )
        found.append(_judged(row))
    return found


def read(root: Path, task: str, project: str | None = None) -> list[Row]:
    """All rows of a task that belong to the baselines as they are now; several seeds of a recipe are pooled too.

    Args:
        root: the folder `checkpoints/`.
        task: its name.
        project: name of the project; by default the only one of the task.

    Raises:
        InputError: no recipe of that task has been run, or it has several projects and none was named, or a file changed
            after it was written.
    """
    home = projects.find(root, task, project)
    found: dict[Path, list[Row]] = {}
    for path in sorted(home.folder.glob(f"[!.]*/seed-*/{RESULT}")):
        if not refusals.applies(path.parent):
            continue  # those are of other settings, or of another model
        if stored := result_file.read(path.parent):
            found[path.parent] = [_judged(_loaded(row, path.parent, home.name)) for row in stored]
    if not found:
        raise InputError(f"task {task!r}: no results in {home.folder}; first: optkit run RECIPE… --task {task}")
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
    rows, groups = list(group.values()), read_groups(*(folder / "served" for folder in group))
    own = np.stack([_scores(folder)[rows[0].precision] for folder in group])
    reference = np.stack([_scores(baseline_of(folder))[FP32] for folder in group])
    averaged = ("value", "baseline", "delta", "rungs", "scores", "latency_ms", "throughput", "speedup", "speedup_vs_16bit")
    row = replace(rows[0], **{name: _mean([getattr(row, name) for row in rows]) for name in averaged})
    row.degenerate = doubts.worst(rows)
    for name in ("ladder", "invariance"):
        setattr(row, name, _worst([getattr(row, name) for row in rows]))
    for name in ("speedup_ci95", "p99_ms_ci95"):
        setattr(row, name, _widest([getattr(row, name) for row in rows]))
    row.seed, row.seeds = None, [row.seed for row in rows if row.seed is not None]
    row.machine = " and ".join(dict.fromkeys(row.machine for row in rows if row.machine))
    row.delta_ci95 = list(paired_bootstrap(own, reference, row.metric, groups.get("outcomes")))
    answers = [read_of_engine(folder / "served" / ANSWERS, row.precision) for folder in group]
    baselines = [read_of_engine(baseline_of(folder) / "served" / ANSWERS, FP32) for folder in group]
    row = replace(row, **changes.summary(answers, baselines, groups.get("examples")))
    row.stages = loss_by_stage(list(group), row.precision, row.metric)
    row.remarks = [f"seed {one.seed}: {remark}" for one in rows for remark in one.remarks]
    row.load = next((own.load for own in rows if own.load), {})
    return _judged(row)


def _loaded(row: Row, folder: Path, project: str) -> Row:
    """The row with its project, and with what was measured under load since it was written."""
    row.project = project
    row.load = load_summary.read(folder, row.precision)
    return row


def _judged(row: Row) -> Row:
    """The row with the verdict of the gate as it is now."""
    row.verdict, row.reasons = judge(row)
    return row


def _ranked(rows: list[Row]) -> list[Row]:
    """The baseline first, then the best: what passed before what did not, the fastest first."""
    speed = speed_among(rows)

    def rank(row: Row) -> tuple[bool, int, float, int]:
        is_baseline = row.recipe == BASELINE
        verdict = 0 if is_baseline else VERDICTS.index(row.verdict)
        return not is_baseline, verdict, -speed(row), row.seed or 0

    return sorted(rows, key=rank)


def _scores(folder: Path) -> dict[str, np.ndarray]:
    verify(folder / "served", SCORES)
    return read_scores(folder / "served" / SCORES)


def _evidence(folder: Path, precision: str) -> dict[str, Any]:
    audit, chosen = read_json(folder / "graph" / "audit.json"), conversion_file.kept(folder / "engines", precision)
    return {
        **chosen["evidence"],
        "variant": chosen["variant"],
        "chosen_by": [*chosen["ms"]],
        **{name: audit[name] for name in ("encoder_gemms", "covered_gemms")},
        "covered_share": audit.get("covered_share", 1.0),  # older audits have none, and cover all
    }


def _speed(performance: Mapping[str, Mapping[str, Mapping[str, Any]]], precision: str) -> dict[str, Any]:
    own = performance[precision]
    prefix = BESIDE if any(name.startswith(BESIDE) for name in performance) else ""
    beside = {name.removeprefix(prefix): values for name, values in performance.items() if name.startswith(prefix)}
    sixteen_bit = next((beside[name] for name in SIXTEEN_BIT if name in beside), None)
    return {
        "latency_ms": {size: {p: values[p] for p in ("p50", "p95", "p99")} for size, values in own.items()},
        "throughput": {size: values["throughput"] for size, values in own.items()},
        "p99_ms_ci95": {size: values["p99_ci95"] for size, values in own.items()},
        "speedup": _ratio(beside[FP32], own),
        "speedup_ci95": {size: _ratio_ci95(beside[FP32][size], values) for size, values in own.items()},
        "speedup_vs_16bit": _ratio(sixteen_bit, own) if sixteen_bit else None,
    }


def _ratio(other: Mapping[str, Mapping[str, Any]], own: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    return {size: round(other[size]["p50"] / values["p50"], 3) for size, values in own.items()}


def _ratio_ci95(other: Mapping[str, Any], own: Mapping[str, Any]) -> list[float]:
    """The 95 % interval of the ratio of two medians; never too narrow, as both ends take the worst of the two intervals."""
    (low, high), (own_low, own_high) = other["p50_ci95"], own["p50_ci95"]
    return [1.0, 1.0] if other is own else [round(low / own_high, 3), round(high / own_low, 3)]


def _mean(values: list[Any]) -> Any:
    """Mean of numbers, key by key where they are dictionaries; None where a seed has none, as it built no such engine."""
    if any(value is None for value in values):
        return None
    if isinstance(values[0], dict):
        return {key: _mean([value[key] for value in values]) for key in values[0]}
    return fmean(values)


def _worst(ladders: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Return one ladder over several seeds: the mean of the metric, and the largest of every difference."""
    if not all(ladders):  # results of before there were ladders
        return {}
    return {
        rung: {
            name: fmean(found) if name == "value" else max(found)
            for name in values
            if (found := [ladder[rung][name] for ladder in ladders if name in ladder[rung]])
        }
        for rung, values in ladders[0].items()
    }


def _widest(intervals: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, list[float]]:
    """Return one interval per batch size over several seeds, each measured in its own run: from lowest to highest bound."""
    if not all(intervals):
        return {}
    return {size: [min(one[size][0] for one in intervals), max(one[size][1] for one in intervals)] for size in intervals[0]}
