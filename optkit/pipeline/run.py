"""The way a recipe takes, from settings to judged result rows; each step leaves its evidence on disk (see `step_graph`)."""

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

from accelerate import PartialState

from optkit.core import temporary
from optkit.core.errors import MachineError, OptkitError
from optkit.evaluation.results import Refusal, Result, Row
from optkit.pipeline import preflight, refusals
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.step_graph import Graph, graph_of, title
from optkit.pipeline.steps.train import trained
from optkit.recipe.recipe import Recipe
from optkit.training.loop import on_cpu

log = logging.getLogger(__name__)
Execute = Callable[[Graph], Mapping[str, Any]]
"""Takes all steps of a graph, and returns by title what each gave."""


Ended = tuple[Mapping[str, Any], Mapping[str, Exception]]
"""What steps gave, and what they raised, by title."""
Attempt = Callable[[Graph], Ended]
"""Takes all steps of a graph that need none that fails."""


def in_order(graph: Graph) -> Mapping[str, Any]:
    """Take all steps in this process, one after the other; what is finished already is not done again.

    Raises:
        OptkitError: the first that a step raised, after all steps that do not need it; at once if the machine lacks
            something, which others would lack too.
    """
    results, errors = as_far_as_possible(graph, at_once=(MachineError,))
    if errors:
        left_out = [name for name in graph if name not in results and name not in errors]
        if left_out:
            log.error("left out, as they need what failed: %s", ", ".join(left_out))
        raise next(iter(errors.values()))
    return results


def as_far_as_possible(graph: Graph, at_once: tuple[type[Exception], ...] = ()) -> Ended:
    """Take all steps in this process, one after the other, but those that need one that failed.

    Args:
        graph: the steps.
        at_once: errors that end everything.
    """
    results, errors, dropped = dict[str, Any](), dict[str, Exception](), set[str]()
    for name, step in graph.items():
        if dropped.isdisjoint(step.needs):
            try:
                results[name] = step.run()
                continue
            except OptkitError as error:
                if isinstance(error, at_once):
                    raise
                log.warning("%s failed, what does not need it goes on: %s", name, error)
                errors[name] = error
        dropped.add(name)
    return results, errors


def run(recipe: Recipe, spec: RunSpec) -> list[Row]:
    """Take a recipe all the way.

    Returns:
        One row per engine precision, scored through the server.
    """
    return _rows([recipe], [spec], in_order)


def _rows(recipes: Sequence[Recipe], specs: Sequence[RunSpec], execute: Execute) -> list[Row]:
    found = execute(graph_of(recipes, specs))
    return [row for spec, recipe in product(specs, recipes) for row in found[title("judge", recipe.name, spec)]]


def run_all(recipes: Sequence[Recipe], specs: Sequence[RunSpec], execute: Execute = in_order) -> list[Result]:
    """Run every recipe that applies to the model on every spec, after a look at what can be known before any training.

    Under `accelerate launch`, all processes train together first; then the main one goes on alone, since graphs, engines
    and servers are made once, and the others have no rows to return.

    Args:
        recipes: to run.
        specs: what they are run on, differing by their seeds.
        execute: takes the steps: `in_order`, or a cluster's.

    Returns:
        The rows of the recipes, and the refusals of those that do not apply to the model.

    Raises:
        InputError: no recipe applies to the model.
    """
    temporary.sweep_tree(specs[0].home.folder)
    refused = preflight.refusals(recipes, specs[0], here=execute is in_order)  # specs differ by their seed
    recipes = [recipe for recipe in recipes if recipe.name not in refused]
    state = PartialState(cpu=on_cpu())
    if state.num_processes > 1:
        for spec, recipe in product(specs, recipes):
            trained(recipe, spec)
        state.destroy_process_group()
        if not state.is_main_process:
            return []
    try:
        found: list[Result] = [*_rows(recipes, specs, execute)]
    except OptkitError:
        if len(recipes) > 1:
            log.warning("optkit compare --task %s --name %s shows what is finished", specs[0].home.task, specs[0].home.name)
        raise
    return [*found, *(_refused(name, reason, specs) for name, reason in refused.items())]


def _refused(name: str, reason: str, specs: Sequence[RunSpec]) -> Refusal:
    """The refusal of a recipe, written down where its results would be."""
    task = specs[0].task
    refusal = Refusal(name, task.name, task.metric, [reason])
    refusals.write(refusal, [spec.folder(spec.recipes[name]) for spec in specs])
    return refusal
