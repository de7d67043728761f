"""The arithmetic of a search, by hand: dev in two parts, the front, the ranking, the goals."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from optkit.core.errors import InputError
from optkit.pipeline import search_front
from optkit.pipeline.search_front import Delta, Judged, Parts
from optkit.pipeline.search_goal import Goal
from optkit.tasks.base import Task


def test_the_front_by_hand() -> None:
    """Points lost and time: (0, 4), (1, 2) and (3, 1) are on it; (1, 3) loses to (1, 2), of which the first counts."""
    points = [(0.0, 4.0), (1.0, 3.0), (1.0, 2.0), (1.0, 2.0), (3.0, 1.0), (3.0, 2.5)]
    found = search_front.front(list(enumerate(points)), lambda one: one[1])
    assert [number for number, _ in found] == [0, 2, 4]
    assert search_front.front([], lambda one: one) == []


def test_the_ranking_by_hand() -> None:
    """Within the budget the cheapest comes first, and of those about as cheap the one that loses least; beyond it the
    nearest comes first, whatever it costs."""
    candidates = {
        "slow": Delta(0.0, -0.2, 0.2),
        "fast": Delta(-0.3, -0.5, -0.1),
        "as fast": Delta(-0.1, -0.3, 0.1),
        "perhaps": Delta(-0.4, -0.8, 0.0),
        "nearer": Delta(-1.0, -1.4, -0.6),
        "far": Delta(-3.0, -3.5, -2.5),
    }
    costs = {"slow": 0.9, "fast": 0.4, "as fast": 0.41, "perhaps": 0.1, "nearer": 0.3, "far": 0.01}
    verdicts = {name: delta.verdict(0.5) for name, delta in candidates.items()}
    assert list(verdicts.values()) == ["pass", "pass", "pass", "undecided", "fail", "fail"]
    order = search_front.ranked(candidates, lambda name: Judged(verdicts[name], candidates[name], costs[name]))
    assert order == ["as fast", "fast", "slow", "perhaps", "nearer", "far"]
    costs["as fast"] = 0.42
    assert search_front.ranked(candidates, lambda name: Judged(verdicts[name], candidates[name], costs[name]))[0] == "fast"


def test_a_delta_of_one_part_by_hand() -> None:
    """Two seeds on four outcomes: the first two are one part, the last two the other."""
    own = np.array([[100.0, 0.0, 100.0, 100.0], [100.0, 100.0, 100.0, 0.0]])
    reference = np.full((2, 4), 100.0)
    parts = Parts(np.array([0, 1]), np.array([2, 3]), 0, None)
    found = search_front.delta(own, reference, "accuracy", parts, parts.chosen_on)
    assert found.points == pytest.approx(-25.0) and found.low <= -25 <= found.high
    assert search_front.delta(own[:, ::-1], reference, "accuracy", parts, parts.reported_on).points == pytest.approx(-25.0)


def test_dev_is_parted_by_its_texts(tiny_task: Task) -> None:
    parts = search_front.parts_of_dev(tiny_task, 64)
    chosen, reported = set(parts.chosen_on.tolist()), set(parts.reported_on.tolist())
    assert not chosen & reported and len(chosen) + len(reported) + parts.left_out == 64
    assert 0 < len(chosen) <= 32
    belonging = tiny_task.belonging("dev")
    assert not {group for row in chosen for group in belonging[row]} & {
        group for row in reported for group in belonging[row]
    }
    again = search_front.parts_of_dev(tiny_task, 64)
    assert np.array_equal(parts.chosen_on, again.chosen_on), "the next run sees the same part"


def task_of(groups: list[int] | None) -> Any:
    found = None if groups is None else np.array(groups)
    return SimpleNamespace(
        name="toy", scored_units="queries", drawn=lambda: SimpleNamespace(outcomes=found), examples=lambda split: []
    )


def test_groups_are_on_one_side_and_numbered_anew() -> None:
    parts = search_front.parts_of_dev(task_of([0, 0, 1, 1, 2, 2]), 6)
    groups = np.array([0, 0, 1, 1, 2, 2])
    assert len(parts.chosen_on) == 2 and len(set(groups[parts.chosen_on])) == 1 and parts.left_out == 0
    assert parts.of(parts.chosen_on).tolist() == [0, 0] and sorted(parts.of(parts.reported_on)) == [0, 0, 1, 1]


def test_queries_without_groups_are_drawn_one_by_one() -> None:
    parts = search_front.parts_of_dev(task_of(None), 9)
    assert (len(parts.chosen_on), len(parts.reported_on), parts.groups) == (4, 5, None)


def test_one_group_cannot_be_parted() -> None:
    with pytest.raises(InputError, match="dev has 4 queries that belong together; expected several groups"):
        search_front.parts_of_dev(task_of([0, 0, 0, 0]), 4)


@dataclass
class Measured:
    """The fields of a row that goals read."""

    speedup: dict[str, float]
    p99_ms_ci95: dict[str, list[float]]
    size_bytes: int = 3_000_000


def test_costs_by_hand() -> None:
    row: Any = Measured({"1": 2.0, "8": 2.5, "32": 4.0}, {"1": [4.0, 6.0]})
    own = {1: 0.5, 8: 0.5, 32: 0.5}  # of a model whose baseline takes half the reference's time
    assert Goal("latency@1", 1.0).cost_of(row, {1: 0.5}) == pytest.approx(0.25)
    assert Goal("latency@32", 1.0).cost_of(row, {32: 1.0}) == pytest.approx(0.25)
    assert Goal("throughput", 1.0).cost_of(row, own) == pytest.approx(0.125)
    assert Goal("size", 1.0).cost_of(row, {}) == pytest.approx(3.0)
    assert [Goal("latency@1", 1.0, bound).p99_verdict(row) for bound in (None, 7, 5, 3)] == [
        "pass",
        "pass",
        "undecided",
        "fail",
    ]
    assert Goal("latency@8", 0.5, 20).of_recipe() == {
        "max_drop": 0.5,
        "max_p99_ms": {"8": 20},
        "workload": ((8, 128),),
    }
    assert Goal("latency@1", 0.5, None).workload == ((1, 32), (1, 128)) and not Goal("size", 0.5, None).workload


@pytest.mark.parametrize("goal", ["latency", "latency@3", "accuracy", ""])
def test_unknown_goals(goal: str) -> None:
    with pytest.raises(InputError, match="expected one of latency@1, latency@8, latency@32, throughput, size"):
        Goal.of(goal, 1.0, None)
