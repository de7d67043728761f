"""The steps of a run: each once, behind what it needs, in the order in which one process takes them."""

import logging
import pickle
from pathlib import Path

import pytest

from optkit import Distill, Quantize, Recipe
from optkit.core.errors import GateError, MachineError, OptkitError
from optkit.pipeline.run import in_order
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.step_graph import Step, graph_of
from optkit.recipe.stage import BASELINE
from optkit.tasks.base import Task

STUDENT = Distill(layers=1)
RECIPES = {
    BASELINE: Recipe(name=BASELINE),
    "ptq": Recipe(name="ptq", stages=[Quantize(epochs=0)]),
    "student": Recipe(name="student", stages=[STUDENT]),
    "student_qat": Recipe(name="student_qat", stages=[STUDENT, Quantize(teacher="student@3", epochs=1)]),
    "crowd": Recipe(name="crowd", stages=[Quantize(epochs=1, teacher=[f"{BASELINE}@1", f"{BASELINE}@2", "./big"])]),
    "other": Recipe(name="other", stages=[Distill(layers=1, augment=0.1, teacher="ptq")]),
}


def of(task: Task, *seeds: int) -> list[RunSpec]:
    return [RunSpec(task, None, seed, Path("checkpoints"), RECIPES) for seed in seeds]


def test_one_recipe_comes_after_its_parent_and_beside_its_baseline(tiny_task: Task) -> None:
    assert list(graph_of([RECIPES["student"]], of(tiny_task, 0))) == [
        "train baseline_fp32, seed 0",
        "teach baseline_fp32, seed 0",
        "train student, seed 0",
        "export student, seed 0",
        "engines student, seed 0",
        "export baseline_fp32, seed 0",
        "engines baseline_fp32, seed 0",
        "score student, seed 0",
        "score baseline_fp32, seed 0",
        "judge baseline_fp32, seed 0",
        "judge student, seed 0",
    ]


def test_every_step_is_there_once_and_behind_what_it_needs(tiny_task: Task) -> None:
    graph = graph_of(list(RECIPES.values()), of(tiny_task, 0, 1))
    done: set[str] = set()
    for title, step in graph.items():
        assert done.issuperset(step.needs), title
        done.add(title)
    kinds = [step.kind for step in graph.values()]
    assert kinds.count("score") == kinds.count("judge") == 2 * len(RECIPES)


def test_a_teacher_of_another_seed_is_trained_for_it(tiny_task: Task) -> None:
    graph = graph_of([RECIPES["student_qat"]], of(tiny_task, 0))
    assert set(graph["train student_qat, seed 0"].needs) == {
        "train baseline_fp32, seed 0",  # taught the student
        "train student, seed 0",
        "teach student, seed 3",
    }
    assert graph["teach student, seed 3"].needs == ("train student, seed 3",)


def test_every_one_of_several_teachers_is_trained_and_asked(tiny_task: Task) -> None:
    """Once for both students."""
    graph = graph_of([RECIPES["crowd"]], of(tiny_task, 0, 1))
    for seed in (0, 1):
        assert graph[f"train crowd, seed {seed}"].needs == (
            "teach baseline_fp32, seed 1",
            "teach baseline_fp32, seed 2",
            "teach ./big",
            f"train baseline_fp32, seed {seed}",
        )
    assert graph["teach baseline_fp32, seed 2"].needs == ("train baseline_fp32, seed 2",)
    assert graph["teach ./big"].needs == graph["train baseline_fp32, seed 2"].needs == ()
    assert not {"score baseline_fp32, seed 2", "export baseline_fp32, seed 2"} & set(graph), "it only teaches"


def test_logits_are_made_for_those_alone_who_read_them(tiny_task: Task) -> None:
    graph = graph_of([RECIPES["other"]], of(tiny_task, 0))
    assert graph["train other, seed 0"].needs == ("train ptq, seed 0", "train baseline_fp32, seed 0")


def test_what_goes_to_another_process_is_found_anew_there(tiny_task: Task) -> None:
    """The contents of model and data: a node that sees others must not take over the keys of these."""
    (spec,) = of(tiny_task, 0)
    assert (spec.unlabelled_key and not spec.is_first("x")) or "unlabelled_key" in vars(spec)
    again = pickle.loads(pickle.dumps(spec))
    assert set(vars(again)) == set(RunSpec.__dataclass_fields__) and again.task.fingerprint() == tiny_task.fingerprint()


def steps(failing: dict[str, OptkitError]) -> tuple[dict[str, Step], list[str]]:
    """Three steps, of which the second needs the first; and the names of those that were taken."""
    taken: list[str] = []

    def take(name: str) -> str:
        taken.append(name)
        if name in failing:
            raise failing[name]
        return name.upper()

    needs = {"a": (), "b": ("a",), "c": ()}
    return {name: Step("train", lambda name=name: take(name), needs[name]) for name in needs}, taken


def test_what_does_not_need_a_step_that_failed_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    graph, taken = steps({"a": GateError("a went astray")})
    with caplog.at_level(logging.WARNING), pytest.raises(GateError, match="a went astray"):
        in_order(graph)
    assert taken == ["a", "c"] and "a failed, what does not need it goes on: a went astray" in caplog.text
    graph, taken = steps({"a": GateError("a went astray"), "c": GateError("so did c")})
    with pytest.raises(GateError, match="a went astray"):
        in_order(graph)
    assert "so did c" in caplog.text
    graph, taken = steps({})
    assert in_order(graph) == {"a": "A", "b": "B", "c": "C"} and taken == ["a", "b", "c"]


def test_what_the_machine_lacks_ends_a_run_at_once() -> None:
    graph, taken = steps({"a": MachineError("no room")})
    with pytest.raises(MachineError):
        in_order(graph)
    assert taken == ["a"]
