"""The end of a search: its finalists trained in full, over seeds, served and gated; chosen on one part of dev, and
reported on the other.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from optkit.evaluation.artifacts import SCORES, read_scores
from optkit.evaluation.results import VERDICTS, Row
from optkit.pipeline import rows, search_front
from optkit.pipeline.run import Execute, run_all
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.search_front import Delta, Judged, Parts
from optkit.pipeline.search_goal import Goal
from optkit.pipeline.search_trials import FP32, time_ratios
from optkit.pipeline.step_graph import Step, title
from optkit.recipe.recipe import Recipe
from optkit.recipe.stage import BASELINE

log = logging.getLogger(__name__)
Specs = Callable[[int], tuple[list[RunSpec], list[Recipe]]]
"""Function from the number of a model to its specs, one for each seed, and its recipes, as `optkit run` would make them."""


@dataclass(frozen=True)
class Final:
    """One engine of a finalist, or of a baseline, over all seeds."""

    model: str
    recipe: str
    file: str | None
    """Recipe file that repeats it; None of a baseline."""
    row: Row
    chosen: Delta
    """Difference from the reference on the part of dev that the search chose by."""
    reported: Delta
    """The same on the part that it never saw."""
    cost: float
    p99: str
    """Verdict on the bound of the 99th percentile."""

    def verdict(self, delta: Delta, max_drop: float) -> str:
        """Return whether it is within the budget, by one of the two differences; what fails its gate is not."""
        return max(delta.verdict(max_drop), self.p99, "fail" if self.refused else "pass", key=VERDICTS.index)

    @property
    def refused(self) -> list[str]:
        """Why its gate fails, beside the loss and the 99th percentile, which are judged here, against the reference."""
        failed = self.row.verdict == "fail"
        return [reason for reason in self.row.reasons if failed and not reason.startswith(("delta ", "p99 "))]

    def as_dict(self, goal: Goal) -> dict[str, Any]:
        """Return what a report tells, in JSON's types."""
        own = {
            name: getattr(self.row, name)
            for name in ("seeds", "precision", "engine", "metric", "value", "size_bytes", "speedup")
        }
        return {
            "model": self.model,
            "recipe": self.recipe,
            "file": self.file,
            **own,
            "latency_ms": self.row.latency_ms,
            "chosen_on": list(self.chosen),
            "reported_on": list(self.reported),
            "cost": self.cost,
            "verdict_chosen_on": self.verdict(self.chosen, goal.max_drop),
            "verdict": self.verdict(self.reported, goal.max_drop),
            "gate": self.row.verdict,
            "reasons": self.row.reasons,
            "remarks": self.row.remarks,
        }


def run_finals(
    models: Sequence[str], specs_of: Specs, files: Mapping[str, Path], parts: Parts, goal: Goal, execute: Execute
) -> list[Final]:
    """Run the finalists and their baselines on all of train, as `optkit run` does; the best within the budget first.

    Args:
        models: names of the models; the first one's FP32 baseline is the reference.
        specs_of: makes what is run.
        files: recipe files by name.
        parts: of dev.
        goal: what is looked for.
        execute: takes the steps.
    """
    found: list[Final] = []
    made = [specs_of(number) for number in range(len(models))]
    reference = made[0][0]
    for number, (model, (specs, recipes)) in enumerate(zip(models, made, strict=True)):
        if number and not recipes:
            continue
        asked = [specs[0].baseline, *recipes]
        measured = [row for row in run_all(asked, specs, execute) if isinstance(row, Row)]
        ratio = _baseline_ratio(specs[0], reference[0], goal, execute) if number else dict.fromkeys(goal.batch_sizes, 1.0)
        for recipe in asked:
            found += _of_recipe(recipe, model, measured, specs, reference, ratio, files, parts, goal)
    return search_front.ranked(found, lambda one: Judged(one.verdict(one.chosen, goal.max_drop), one.chosen, one.cost))


def any_holds(finals: Sequence[Final], goal: Goal) -> bool:
    """Return whether a recipe that was found may be within the budget, where it was chosen."""
    return any(one.file is not None and one.verdict(one.chosen, goal.max_drop) != "fail" for one in finals)


def _baseline_ratio(spec: RunSpec, reference: RunSpec, goal: Goal, execute: Execute) -> dict[int, float]:
    """The time of a model's FP32 baseline over the reference's, by batch size, timed beside each other without a server."""
    run = partial(time_ratios, spec.baseline, spec, reference.baseline, reference, goal.batch_sizes)
    name = title("measure", BASELINE, spec)
    ratios: dict[str, dict[int, float]] = execute({name: Step("measure", run, ())})[name]
    return ratios.get(FP32, {})


def _of_recipe(
    recipe: Recipe,
    model: str,
    measured: Sequence[Row],
    specs: Sequence[RunSpec],
    reference: Sequence[RunSpec],
    ratio: Mapping[int, float],
    files: Mapping[str, Path],
    parts: Parts,
    goal: Goal,
) -> list[Final]:
    """One final for each precision that all seeds have."""
    found = []
    against = np.stack([_outcomes(spec.folder(spec.baseline), FP32) for spec in reference])
    for precision in dict.fromkeys(row.precision for row in measured if row.recipe == recipe.name):
        group = {spec.folder(recipe): row for spec in specs for row in measured if _is(row, recipe, precision, spec.seed)}
        if len(group) < len(specs):
            log.warning("%s %s: left out, not every seed has such an engine", recipe.name, precision)
            continue
        row = rows.pool(group) if len(group) > 1 else next(iter(group.values()))
        own = np.stack([_outcomes(folder, precision) for folder in group])
        chosen, reported = (
            search_front.delta(own, against, row.metric, parts, some) for some in (parts.chosen_on, parts.reported_on)
        )
        file = None if recipe.name == BASELINE else str(files[recipe.name])
        cost, p99 = goal.cost_of(row, ratio), goal.p99_verdict(row)
        found.append(Final(model, recipe.name, file, row, chosen, reported, cost, p99))
    return found


def _is(row: Row, recipe: Recipe, precision: str, seed: int) -> bool:
    return (row.recipe, row.precision, row.seed) == (recipe.name, precision, seed)


def _outcomes(folder: Path, precision: str) -> np.ndarray:
    return read_scores(folder / "served" / SCORES)[precision]


def sentences(found: Sequence[Final], goal: Goal, parts: Parts) -> list[str]:
    """Return what a reader should know: the best, or what the nearest lacks, and how optimistic the selection was."""
    best = found[0]
    chosen, reported = best.verdict(best.chosen, goal.max_drop), best.reported.verdict(goal.max_drop)
    named = f"{best.recipe} {best.row.precision} of {best.model}"
    if chosen == "pass":
        said = [f"the best within the budget: {named}"]
    elif chosen == "undecided":
        said = [f"nothing is shown to be within the budget; the nearest is {named}: {_missing(best, best.chosen, goal)}"]
    else:
        said = [f"nothing is within the budget; the nearest is {named}, which lacks {_missing(best, best.chosen, goal)}"]
    said.append(
        f"on {len(parts.chosen_on):,} of dev, chosen by: {best.chosen}; on the {len(parts.reported_on):,} that the "
        f"search never saw: {best.reported}, {_VERDICT[reported]}"
        + (f"; {parts.left_out:,} belong to both and are in neither" if parts.left_out else "")
    )
    gap = best.chosen.points - best.reported.points
    said.append(
        f"optimism of the selection among {len(found)} engines: {gap:+.2f} points; expect the second of the two losses"
    )
    return said


_VERDICT = {
    "pass": "within the budget",
    "undecided": "which neither shows nor excludes the budget",
    "fail": "beyond the budget",
}


def _missing(best: Final, delta: Delta, goal: Goal) -> str:
    """What keeps a candidate from the budget."""
    lacking = []
    if delta.verdict(goal.max_drop) != "pass":
        lacking.append(
            f"{-goal.max_drop - delta.low:.2f} points, as the loss may reach {-delta.low:.2f} and the "
            f"budget is {goal.max_drop:g}"
        )
    if best.p99 != "pass":
        at, bound = str(goal.batch_size), goal.p99_ms or 0.0
        high = best.row.p99_ms_ci95[at][1]
        lacking.append(
            f"{high - bound:.1f} ms, as the 99th percentile at batch {at} may reach {high:.1f} and the budget is {bound:g}"
        )
    return " and ".join([*lacking, *best.refused])


def as_dict(found: Sequence[Final], goal: Goal, parts: Parts, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report in JSON's types."""
    sizes = {"chosen_on": len(parts.chosen_on), "reported_on": len(parts.reported_on), "left_out": parts.left_out}
    finals = [one.as_dict(goal) for one in found]
    return {"goal": asdict(goal), "dev": sizes, **more, "finals": finals, "said": sentences(found, goal, parts)}
