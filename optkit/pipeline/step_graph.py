"""The steps that recipes take on the way to their judged rows, each with those that have to be finished before it.

`run` takes them one after the other, in the order in which they stand here; `cluster_run` takes those whose needs are met
side by side. Either way a step finds the finished ones before it on disk, by their keys.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Literal

from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.build_engines import converted
from optkit.pipeline.steps.export_graph import exported
from optkit.pipeline.steps.judge import judged
from optkit.pipeline.steps.score import scored
from optkit.pipeline.steps.train import parent_of, trained
from optkit.pipeline.teachers import Teachers
from optkit.recipe.recipe import Recipe
from optkit.recipe.stage import Taught
from optkit.recipe.teacher_names import is_folder

Kind = Literal["train", "teach", "export", "engines", "score", "measure", "judge"]


@dataclass(frozen=True)
class Step:
    """One step of a run."""

    kind: Kind
    run: Callable[[], Any]
    needs: tuple[str, ...]
    """Titles of the steps that have to be finished before."""


Graph = dict[str, Step]
"""Steps by title, in an order in which they can be taken."""


def graph_of(recipes: Sequence[Recipe], specs: Sequence[RunSpec]) -> Graph:
    """Return all steps from nothing to the judged rows of recipes, those of parents, teachers and baselines among them."""
    graph: Graph = {}
    for spec, recipe in product(specs, recipes):
        _judge(graph, recipe, spec)
    return graph


def trainings_of(recipe: Recipe, spec: RunSpec) -> Graph:
    """Return the steps to a recipe's checkpoint, those of parents and teachers among them; its own comes last."""
    graph: Graph = {}
    _train(graph, recipe, spec)
    return graph


def title(kind: Kind, name: str, spec: RunSpec) -> str:
    """Return the name of a step, as logs and progress show it."""
    return f"{kind} {name}, seed {spec.seed}"


def _train(graph: Graph, recipe: Recipe, spec: RunSpec) -> str:
    needs = [need for name in recipe.teachers for need in _taught_by(graph, recipe, name, spec)]
    if parent := parent_of(recipe, spec):
        needs.append(_train(graph, parent, spec))
    return _add(graph, "train", recipe.name, spec, partial(trained, recipe, spec), needs)


def _taught_by(graph: Graph, recipe: Recipe, teacher: str, spec: RunSpec) -> list[str]:
    """What has to be finished of a teacher: its training, and its logits where the recipe's last stage reads them."""
    last, needs, own = recipe.stages[-1], [], f"teach {teacher}"
    if not is_folder(teacher):
        taught_by, spec = Teachers(spec, trained).recipe_and_spec(teacher)
        needs, own = [_train(graph, taught_by, spec)], title("teach", taught_by.name, spec)
    if isinstance(last, Taught) and teacher in last.teachers and last.answers and not last.augment:
        graph.setdefault(own, Step("teach", partial(_logits, teacher, spec), tuple(needs)))
        needs = [own]
    return needs


def _logits(teacher: str, spec: RunSpec) -> None:
    Teachers(spec, trained).logits(teacher)


def _export(graph: Graph, recipe: Recipe, spec: RunSpec) -> str:
    return _add(graph, "export", recipe.name, spec, partial(exported, recipe, spec), [_train(graph, recipe, spec)])


def _engines(graph: Graph, recipe: Recipe, spec: RunSpec) -> str:
    return _add(graph, "engines", recipe.name, spec, partial(converted, recipe, spec), [_export(graph, recipe, spec)])


def _score(graph: Graph, recipe: Recipe, spec: RunSpec) -> str:
    needs = [_engines(graph, recipe, spec), _engines(graph, spec.baseline, spec)]
    return _add(graph, "score", recipe.name, spec, partial(scored, recipe, spec), needs)


def _judge(graph: Graph, recipe: Recipe, spec: RunSpec) -> str:
    needs = [_score(graph, recipe, spec)]
    if not recipe.is_baseline:
        needs.append(_judge(graph, spec.baseline, spec))
    return _add(graph, "judge", recipe.name, spec, partial(judged, recipe, spec), needs)


def _add(graph: Graph, kind: Kind, name: str, spec: RunSpec, run: Callable[[], Any], needs: Sequence[str]) -> str:
    """Put a step behind those that it needs, unless it is there; returns its title."""
    own = title(kind, name, spec)
    graph.setdefault(own, Step(kind, run, tuple(dict.fromkeys(needs))))
    return own
