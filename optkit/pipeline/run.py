"""The way a recipe takes, from settings to judged result rows; each arrow leaves its evidence on disk (see `steps`)."""

from collections.abc import Sequence
from itertools import product

from accelerate import PartialState

from optkit.core import temporary
from optkit.evaluation.results import Refusal, Result, Row
from optkit.pipeline import preflight, refusals, result_file, rows
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.build_engines import converted
from optkit.pipeline.steps.export_graph import exported
from optkit.pipeline.steps.score import scored
from optkit.pipeline.steps.train import trained
from optkit.recipe.recipe import Recipe
from optkit.training.loop import on_cpu


def run(recipe: Recipe, spec: RunSpec) -> list[Row]:
    """Take a recipe all the way; what is finished already is not done again.

    Returns:
        One row per engine precision, scored through the server.
    """
    trained(recipe, spec)
    exported(recipe, spec)
    converted(recipe, spec)
    scored(recipe, spec)
    if not recipe.is_baseline:
        scored(spec.baseline, spec)
        _judged(spec.baseline, spec)
    return _judged(recipe, spec)


def _judged(recipe: Recipe, spec: RunSpec) -> list[Row]:
    """The recipe's rows, written down beside what they are about."""
    folder = spec.folder(recipe)
    found = rows.rows_of(recipe, spec.task, spec.seed, folder, spec.folder(spec.baseline))
    result_file.write(found, folder)
    refusals.forget(folder)
    return found


def run_all(recipes: Sequence[Recipe], specs: Sequence[RunSpec]) -> list[Result]:
    """Run every recipe that applies to the model on every spec, after a look at what can be known before any training.

    Under `accelerate launch`, all processes train together first; then the main one goes on alone, since graphs, engines
    and servers are made once, and the others have no rows to return.

    Returns:
        The rows of the recipes, and the refusals of those that do not apply to the model.

    Raises:
        InputError: no recipe applies to the model.
    """
    temporary.sweep_tree(specs[0].home.folder)
    refused = preflight.refusals(recipes, specs[0])  # specs differ by their seed
    recipes = [recipe for recipe in recipes if recipe.name not in refused]
    state = PartialState(cpu=on_cpu())
    if state.num_processes > 1:
        for spec, recipe in product(specs, recipes):
            trained(recipe, spec)
        state.destroy_process_group()
        if not state.is_main_process:
            return []
    found: list[Result] = [row for spec, recipe in product(specs, recipes) for row in run(recipe, spec)]
    return [*found, *(_refused(name, reason, specs) for name, reason in refused.items())]


def _refused(name: str, reason: str, specs: Sequence[RunSpec]) -> Refusal:
    """The refusal of a recipe, written down where its results would be."""
    task = specs[0].task
    refusal = Refusal(name, task.name, task.metric, [reason])
    refusals.write(refusal, [spec.folder(spec.recipes[name]) for spec in specs])
    return refusal
