"""What can be known of a run before any training: from the configuration alone, and by a trial of the model's graph."""

import logging
from collections.abc import Callable, Mapping, Sequence

from optkit.compression.registry import TECHNIQUES
from optkit.compression.retrain import check_labels, check_teaching, check_together
from optkit.core import step_cache
from optkit.core.code_version import code_version
from optkit.core.errors import InputError
from optkit.engines import select
from optkit.evaluation.latency import BATCH_SIZES
from optkit.graph import trial_export
from optkit.models import families, loading
from optkit.models.loading import LoadedModel
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.train import trained
from optkit.pipeline.teachers import Teachers
from optkit.recipe.recipe import Recipe
from optkit.recipe.stage import Taught
from optkit.recipe.teacher_names import is_folder, recipe_of
from optkit.tasks.base import Task

log = logging.getLogger(__name__)


def require(recipes: Sequence[Recipe], spec: RunSpec) -> None:
    """Raise `InputError` unless every recipe applies to the model."""
    if refused := refusals(recipes, spec):
        raise InputError(_joined(refused))


def refusals(recipes: Sequence[Recipe], spec: RunSpec, here: bool = True) -> dict[str, str]:
    """Find the recipes that do not apply to the model or have no engine, and those that learn from one that does not.

    Args:
        recipes: to be run.
        spec: what they are run on.
        here: whether engines are built on this machine, and not on others that may have what it lacks.

    Returns:
        {name: why the recipe does not apply}; empty if all do.

    Raises:
        InputError: no recipe applies, or none can, as the model itself cannot be used.
    """
    start = spec.architecture()
    check_model(start, spec)
    reasons = why_not(recipes, start, spec)
    lacking = _without_engines(recipes, spec) if here else {}
    reasons = lacking | reasons
    if spec.task.unlabelled and not any(recipe.teachers for recipe in recipes):
        log.warning("--unlabelled: no recipe that is run learns from a teacher; nothing is trained on these texts")
    refused = {recipe.name: reasons[recipe.name] for recipe in recipes if recipe.name in reasons}
    if refused and len(refused) == len(recipes):
        raise InputError(_joined(refused))
    for name, reason in refused.items():
        what = "machine" if lacking.get(name) == reason else "model"
        log.warning("recipe %r is left out, it does not apply to this %s: %s", name, what, reason)
    return refused


def _without_engines(recipes: Sequence[Recipe], spec: RunSpec) -> dict[str, str]:
    """Find the recipes of whose graph this machine builds no engine of the kinds that were asked for; say where it builds
    those of some kinds alone."""
    reasons = {}
    for recipe in recipes:
        try:
            built = {candidate.kind for candidate in select.plan(spec.engines, recipe.is_quantised)}
        except InputError as error:
            reasons[recipe.name] = str(error)
        else:
            for kind in [kind for kind in spec.engines if kind not in built]:
                log.warning("recipe %r: this machine builds no engine of kind %s from its graph", recipe.name, kind)
    return reasons


def _joined(refused: Mapping[str, str]) -> str:
    return "\n".join(f"recipe {name!r}: {reason}" for name, reason in refused.items())


def check_model(start: LoadedModel, spec: RunSpec) -> None:
    """Raise `InputError` where a model cannot be used at all: its family is none of encoders, or has no graph."""
    families.check_model(start.model)
    if not spec.task.labelled and not spec.task.has_head(start.model.config):
        raise InputError(
            f"task {spec.task.name!r}: the train split has no labels to train the FP32 baseline by; give a model that was "
            "trained for the task, as --model FOLDER, or rows with labels"
        )
    _try_graph(start, spec, quantised=False)


def why_not(recipes: Sequence[Recipe], start: LoadedModel, spec: RunSpec) -> dict[str, str]:
    """Find the recipes that do not apply to a model, those that teach the given ones included.

    Args:
        recipes: to be looked at.
        start: what they start from, on the meta device.
        spec: what they are run on.

    Returns:
        {name: why the recipe does not apply}.
    """
    made: dict[str, LoadedModel] = {}
    reasons: dict[str, str] = {}

    def teacher(name: str) -> LoadedModel:
        """A teacher in a folder, or what a recipe makes of the model."""
        if is_folder(name):
            return Teachers(spec, trained).load(name)
        recipe = spec.recipes[recipe_of(name)]
        look_at(recipe)
        if recipe.name in reasons:
            raise InputError(f"it learns from the recipe {recipe.name!r}, which does not apply")
        return made[recipe.name]

    def look_at(recipe: Recipe) -> None:
        if recipe.name in made or recipe.name in reasons:
            return
        try:
            made[recipe.name] = check(recipe, start, teacher, spec.task)
            if recipe.is_quantised:
                _try_graph(start, spec, quantised=True)
        except InputError as error:
            reasons[recipe.name] = str(error)

    for recipe in recipes:
        look_at(recipe)
    return reasons


def check(
    recipe: Recipe, start: LoadedModel, teacher: Callable[[str], LoadedModel], task: Task | None = None
) -> LoadedModel:
    """Raise where a stage of the recipe cannot work on a model; warn where it can on a part of it only.

    Args:
        recipe: to be run.
        start: what it starts from; its weights are not looked at and may be on the meta device.
        teacher: gives a teacher by its name.
        task: that is trained; without one, teachers have to suit any.

    Returns:
        A model of the architecture that the recipe makes.

    Raises:
        InputError: a technique cannot work on the model, cannot be taught by its teacher, or is known by no name; or a
            threshold is for a batch size that is not measured.
    """
    loaded = start
    _check_thresholds(recipe)
    if task is not None:
        _say_clipped(recipe, loading.max_length(start, task))
    for stage in recipe.stages:
        TECHNIQUES.get(stage.technique)  # its checkpoint will be read by that name
        loaded = LoadedModel(stage.preflight(loaded.model, recipe.name), start.tokenizer)
        if task is not None and isinstance(stage, Taught):
            check_labels(stage, task)
        configs = {}
        for name in stage.teachers:
            taught_by = teacher(name)
            check_teaching(loaded, taught_by, name, stage, task)
            configs[name] = taught_by.model.config
        check_together(configs, stage, task)
    return loaded


def _check_thresholds(recipe: Recipe) -> None:
    measured = [str(size) for size in BATCH_SIZES]
    for name in ("min_speedup", "max_p99_ms"):
        given = getattr(recipe, name)
        if isinstance(given, dict) and (others := [repr(size) for size in given if size not in measured]):
            found = f"{name} names batch {', '.join(others)}"
            raise InputError(f"{found}; expected batch sizes that are measured: {', '.join(measured)}")


def _say_clipped(recipe: Recipe, longest: int) -> None:
    for rows, tokens in recipe.workload:
        if tokens > longest:
            log.warning(
                "recipe %r: its workload has %dx%d tokens, and nothing is read beyond %d: engines are chosen at %dx%d",
                *(recipe.name, rows, tokens, longest, rows, longest),
            )


def _try_graph(start: LoadedModel, spec: RunSpec, quantised: bool) -> None:
    """Export a tiny random copy of the architecture, unless that has been done; raise `InputError` where it does not work.

    What worked is a finished step without files, so that a run that goes on does not try again.
    """
    depends_on = {
        "config": start.model.config.to_dict(),
        "head": spec.task.head,
        "quantised": quantised,
        "families": families.records(),
        "code": code_version(trial_export.__name__, type(spec.task).__module__),
    }
    folder = spec.home.folder / ".trials" / step_cache.key_of(depends_on)[:16]
    step_cache.step(folder, depends_on, lambda _: trial_export.trial_export(start.model.config, spec.task, quantised))
