"""The arithmetic of a search: dev in two parts, the Pareto front, and the ranking within a budget."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from optkit.core.errors import InputError
from optkit.evaluation.bootstrap import paired_bootstrap
from optkit.evaluation.results import VERDICTS
from optkit.tasks.data.division import divide
from optkit.tasks.outcomes import value

if TYPE_CHECKING:
    from optkit.tasks.base import Task

T = TypeVar("T")
PASS, UNDECIDED, FAIL = VERDICTS
ABOUT = 1.03
"""Costs of so near a ratio are one: a time measured twice differs by as much."""


@dataclass(frozen=True)
class Parts:
    """The outcomes of dev in two parts, by group: the search chooses on one and never sees the other, which reports."""

    chosen_on: NDArray[np.int64]
    """Indices of outcomes."""
    reported_on: NDArray[np.int64]
    left_out: int
    """Outcomes that belong to groups of both parts and are in neither."""
    groups: NDArray[np.int64] | None
    """Group of each outcome, which intervals draw; None where each is drawn by itself."""

    def of(self, indices: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Return the groups of a part, numbered without gaps."""
        return None if self.groups is None else np.unique(self.groups[indices], return_inverse=True)[1]


class Delta(NamedTuple):
    """A difference of the headline metric from the reference's, in points."""

    points: float
    low: float
    high: float
    """Ends of its 95 % interval."""

    def verdict(self, max_drop: float) -> str:
        """Return whether the loss is within a budget: by the whole interval, or undecided."""
        return PASS if self.low >= -max_drop else FAIL if self.high < -max_drop else UNDECIDED

    def __str__(self) -> str:
        return f"{self.points:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


class Judged(NamedTuple):
    """What candidates are ranked by."""

    verdict: str
    """On the budget, one of `VERDICTS`."""
    delta: Delta
    cost: float


def parts_of_dev(task: "Task", outcomes: int, seed: int = 0) -> Parts:
    """Part dev in halves: whole groups of the data, or texts with their pieces, or queries, are on one side.

    Args:
        task: with the dev split.
        outcomes: number of its outcomes (see `Task.outcomes`).
        seed: of the draw.

    Raises:
        InputError: one of the parts would be empty.
    """
    groups = task.drawn().outcomes
    if groups is not None:
        belonging = [[int(group)] for group in groups]
    elif outcomes == len(task.examples("dev")):
        belonging = task.belonging("dev")
    else:
        belonging = [[number] for number in range(outcomes)]
    found = divide(belonging, outcomes / 2, seed)
    if not found.part or not found.rest:
        raise InputError(
            f"task {task.name!r}: dev has {outcomes:,} {task.scored_units} that belong together; expected several groups, "
            "as a search chooses on one part and reports on the other. Give a larger dev split"
        )
    return Parts(np.array(found.part), np.array(found.rest), len(found.left_out), groups)


def delta(own: NDArray[Any], reference: NDArray[Any], metric: str, parts: Parts, indices: NDArray[np.int64]) -> Delta:
    """Return the difference on one part.

    Args:
        own, reference: outcomes [seeds, outcomes] of the same seeds.
        metric: headline metric.
        parts: of dev.
        indices: of the part.
    """
    own, reference = own[:, indices], reference[:, indices]
    points = np.mean([value(one, metric) - value(other, metric) for one, other in zip(own, reference, strict=True)])
    return Delta(float(points), *paired_bootstrap(own, reference, metric, parts.of(indices)))


def front(points: Sequence[T], costs: Callable[[T], tuple[float, ...]]) -> list[T]:
    """Return the points that none beats: no other is as good in all costs and better in one. Of equal ones the first."""
    found: list[T] = []
    for number, point in enumerate(points):
        own = costs(point)
        others = [(place, costs(other)) for place, other in enumerate(points) if place != number]
        if not any(
            all(a <= b for a, b in zip(cost, own, strict=True)) and (cost != own or place < number) for place, cost in others
        ):
            found.append(point)
    return found


def ranked(candidates: Iterable[T], judged: Callable[[T], Judged]) -> list[T]:
    """Return candidates in order: within the budget first, the cheapest of them, of those about as cheap the one that loses
    least; then the nearest to the budget."""
    found, left = list[T](), sorted(((judged(one), one) for one in candidates), key=lambda pair: _rank(*pair[0]))
    while left:
        first = left[0][0]
        about = [
            place
            for place, (own, _) in enumerate(left)
            if own.verdict == first.verdict == PASS and own.cost <= first.cost * ABOUT
        ]
        found.append(left.pop(max(about, key=lambda place: left[place][0].delta.points, default=0))[1])
    return found


def _rank(verdict: str, delta: Delta, cost: float) -> tuple[int, float, float]:
    place = VERDICTS.index(verdict)
    return (place, cost, -delta.points) if verdict == PASS else (place, -delta.points, cost)
