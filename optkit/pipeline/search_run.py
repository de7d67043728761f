"""`optkit search`: the best recipe within a budget, from a space to result rows that `optkit run` repeats."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optkit.core import atomic
from optkit.core.errors import InputError
from optkit.core.step_cache import key_of
from optkit.pipeline import preflight, search_finals, search_front, search_recipes, search_study
from optkit.pipeline.run import in_order
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.search_finals import Final
from optkit.pipeline.search_front import Parts
from optkit.pipeline.search_goal import Goal
from optkit.pipeline.search_space import Space
from optkit.pipeline.search_study import Budget, Tried
from optkit.pipeline.search_trials import Trials
from optkit.recipe.recipe import Recipe

if TYPE_CHECKING:
    from optkit.pipeline.cluster_run import ClusterRun

log = logging.getLogger(__name__)
REPORT = "report.json"
Full = Callable[[int, Sequence[str]], tuple[list[RunSpec], list[Recipe]]]
"""Function from the number of a model and recipe files to specs on all of train, one for each seed, and the recipes."""


@dataclass(frozen=True)
class Plan:
    """A search."""

    models: tuple[str, ...]
    """Names of the models; the first one's FP32 baseline is what all is compared with."""
    goal: Goal
    space: Space
    budget: Budget
    sampler: str
    seed: int
    finalists: int
    """Members of the front that are trained in full and served."""
    out: Path
    """Folder of the recipe files and the report."""

    def __post_init__(self) -> None:
        """Raise `InputError` for an unknown sampler."""
        if self.sampler not in search_study.SAMPLERS:
            raise InputError(f"--sampler {self.sampler}: expected one of {', '.join(search_study.SAMPLERS)}")


@dataclass(frozen=True)
class Found:
    """What a search has found."""

    plan: Plan
    tried: list[Tried]
    """Trials, and the baselines of all models."""
    front: list[Tried]
    finals: list[Final]
    parts: Parts
    said: list[str]


def run(
    plan: Plan,
    trial_specs: Sequence[RunSpec],
    full: Full,
    options: Sequence[str],
    place: Path,
    nodes: "ClusterRun | None" = None,
) -> Found:
    """Search, train the finalists in full, and write the front's recipes and the report.

    Args:
        plan: what to search.
        trial_specs: one for each model, on a part of train.
        full: makes what the finalists are run on.
        options: of the command line that repeats a recipe, by model.
        place: folder of the study's journal.
        nodes: take the steps, several trials side by side; None for this process.

    Raises:
        InputError: a model cannot be used, or naming each of several, or the space has no recipe for any.
        MachineError: Optuna is not installed.
    """
    search_study.optuna_or_hint()
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise atomic.disk_error(plan.out, error) from error
    _check_models(plan, trial_specs)
    trials = Trials(trial_specs, plan.goal, nodes.attempt, nodes.trainings) if nodes else Trials(trial_specs, plan.goal)
    journal = place / f"{_study_key(plan, trial_specs)}.journal"
    study = search_study.open_study(journal, plan.sampler, plan.seed, trials.side_by_side)
    baselines = [Tried(number, (), outcome) for number, outcome in enumerate(trials.baselines())]
    search_study.search(study, trials, plan.space, plan.models, plan.budget, warm=plan.sampler != "random")
    tried, lost = [*baselines, *search_study.finished(study)], search_study.not_finished(study)
    if len(tried) == len(baselines):
        log.warning("no trial has come to an end: %s", "; ".join(dict.fromkeys(lost)) or "there was no time for one")
    front = search_front.front(tried, lambda one: one.costs)
    chosen = search_study.finalists(tried, plan.goal.max_drop, plan.finalists)
    files = _write(plan, [*front, *chosen], options)

    def served() -> list[Final]:
        def specs_of(model: int) -> tuple[list[RunSpec], list[Recipe]]:
            return full(model, [str(files[_recipe(plan, one).name]) for one in chosen if one.model == model])

        return search_finals.run_finals(plan.models, specs_of, files, trials.parts, plan.goal, nodes or in_order)

    finals, most_sure = served(), search_study.surest(tried)
    if most_sure and most_sure not in chosen and not search_finals.any_holds(finals, plan.goal):
        log.info("no finalist holds the budget when it is trained in full: the surest trial is trained too")
        files |= _write(plan, [most_sure], options)
        chosen.append(most_sure)
        finals = served()
    more = {
        "models": plan.models,
        "space": plan.space.as_dict(),
        "trials": [_told(plan, one) for one in tried],
        "lost": lost,
    }
    report = search_finals.as_dict(finals, plan.goal, trials.parts, more)
    atomic.write_json(plan.out / REPORT, report)
    return Found(plan, tried, front, finals, trials.parts, report["said"])


def _check_models(plan: Plan, specs: Sequence[RunSpec]) -> None:
    mistakes = []
    for spec in specs:
        try:
            preflight.check_model(spec.architecture(), spec)
        except InputError as error:
            mistakes.append(str(error))
    if mistakes:
        raise InputError("\n".join(mistakes))


def _study_key(plan: Plan, specs: Sequence[RunSpec]) -> str:
    """What trials depend on: another space, goal or data begins another study."""
    content = {
        "goal": asdict(plan.goal),
        "space": plan.space.as_dict(),
        "models": plan.models,
        "sampler": plan.sampler,
        "seed": plan.seed,
        "sources": [spec.source for spec in specs],
        "training": [spec.training(spec.baseline).model_dump() for spec in specs],
        "engines": [spec.engines for spec in specs],
    }
    return key_of(content)[:16]


def _recipe(plan: Plan, one: Tried) -> Recipe:
    return search_recipes.recipe_of(one.stages, plan.goal.of_recipe(), one.model)


def _write(plan: Plan, members: Sequence[Tried], options: Sequence[str]) -> dict[str, Path]:
    """Write every member of the front that is no baseline, and every finalist, as a recipe file."""
    found = {}
    for one in members:
        if one.stages:
            recipe, outcome = _recipe(plan, one), one.outcome
            does = (
                f"Found by optkit search for {plan.goal.kind}; in its trial, on a part of the data, {outcome.delta} points."
            )
            found[recipe.name] = search_recipes.write(recipe, plan.out, does, options[one.model])
    return found


def _told(plan: Plan, one: Tried) -> Mapping[str, Any]:
    stages = [stage.model_dump(mode="json", exclude_defaults=True) for stage in one.stages]
    return {"model": plan.models[one.model], "stages": stages, **asdict(one.outcome)}
