"""The comparison as one page: self-contained HTML, light and dark, readable on a phone, without a network.

`templates/page.html.jinja` is the page, with its style sheet and its script beside it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from optkit.core.templates import template
from optkit.evaluation import gate
from optkit.evaluation.results import Refusal, Row
from optkit.evaluation.tolerance import Tolerance, exceeds
from optkit.report import figures, pictures


class Rung(NamedTuple):
    """A line of a ladder: how far one rung, or one way to ask the server, moves the logits."""

    name: str
    values: Mapping[str, float]
    allowed: Tolerance
    far: bool
    """Farther than allowed."""


def render(rows: Sequence[Row], refused: Sequence[Refusal] = ()) -> str:
    """The page of a task's rows: one per recipe and precision is shown, over all its seeds; and of recipes left out."""
    own = figures.shown(rows)
    return template("optkit.report", "page.html.jinja").render(
        rows=own,
        refused=refused,
        sizes=figures.batch_sizes(own),
        metrics=list(dict.fromkeys(name for row in own for name in row.scores if name != row.metric)),
        changes=[figures.changes(row) for row in own],
        machines=figures.machines(rows),
        ladders=[(number, row, _rungs(row)) for number, row in enumerate(own, 1) if row.ladder],
        loads=figures.under_load(own),
        batching=figures.BATCHING,
        drawn=_drawn(own),
    )


def _drawn(rows: Sequence[Row]) -> dict[str, Mapping[str, str]]:
    """The drawings of each section of the page, by their titles."""
    sizes = figures.batch_sizes(rows)
    climbed = {"from PyTorch to the server": pictures.ladder(rows)} if figures.rungs(rows) else {}
    measured = [row for _, row in figures.under_load(rows) if figures.curves(row)]
    return {
        "accuracy": {f"batch {size}": pictures.accuracy_against_latency(rows, size) for size in sizes},
        "throughput": {"all batch sizes": pictures.throughput_against_latency(rows, sizes)},
        "stages": {f"{row.recipe} {row.precision}": pictures.waterfall(row) for row in rows if row.stages},
        "ladder": climbed,
        "load": {f"{row.recipe} {row.precision}": pictures.under_load(row) for row in measured},
    }


def _rungs(row: Row) -> list[Rung]:
    """Return the rungs from PyTorch to the server, and the server's invariance checks."""
    rungs = [(rung, values, gate.tolerance(rung, row)) for rung, values in row.ladder.items()]
    ways = [(f"server: {way}", values, gate.invariance_tolerance(row)) for way, values in row.invariance.items()]
    return [
        Rung(name, values, allowed, "mean" in values and exceeds(values, allowed))
        for name, values, allowed in (*rungs, *ways)
    ]
