"""One recipe looked at closely: how far each rung moves its answers, and the examples that change most, with their text."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from optkit.core.errors import InputError
from optkit.core.json_door import read_json
from optkit.core.plain_text import plain, table
from optkit.evaluation import gate
from optkit.evaluation.artifacts import EXAMPLES
from optkit.evaluation.results import Row
from optkit.evaluation.tolerance import Tolerance, exceeds
from optkit.pipeline import projects, row_choice, rows
from optkit.report import figures

if TYPE_CHECKING:
    from rich.table import Table

_WIDTH = 120
_MOVED = ("mean", "largest", "over the signal", "allowed", "flips", "")
"""Columns of a comparison of logits; the last says what went too far."""
_LONGEST = 400  # characters of a text that are shown


class _Example(TypedDict):
    example: int
    flips: list[str]
    row: dict[str, Any]
    predictions: dict[str, Any]
    moved: dict[str, float]
    logits: NotRequired[dict[str, list[float]]]


def explain(
    recipe: str,
    task: str,
    root: Path,
    seed: int = 0,
    precision: str | None = None,
    most: int = 10,
    project: str | None = None,
) -> str:
    """What happened to a recipe's answers on their way from PyTorch to the server, as text for people.

    Args:
        recipe: its name.
        task: it was run on.
        root: the folder `checkpoints/`.
        seed: of the run.
        precision: of the engine; all the recipe has if None.
        most: examples to show for each engine.
        project: name of the project; by default the only one of the task.

    Raises:
        InputError: the recipe has no current result, or not of that precision, or one of an older optkit.
    """
    home = projects.find(root, task, project)
    found = row_choice.of_recipe(rows.read(root, task, home.name), recipe, task, seed, precision)
    path = home.recipe(recipe, seed) / "served" / EXAMPLES
    if not path.is_file():
        raise InputError(f"{path}: missing, as an older optkit scored the recipe; run it again: optkit run {recipe} …")
    examples = read_json(path, dict[str, list[_Example]], f"run the recipe again: optkit run {recipe} …")
    if lacking := [row.precision for row in found if row.precision not in examples]:
        raise InputError(f"{path}: has no examples of {', '.join(lacking)}; run the recipe again: optkit run {recipe} …")
    return "\n".join(_of_engine(row, examples[row.precision], most) for row in found)


def judged(row: Row) -> str:
    """A row's verdict with its reasons, and how far each rung and each way to ask move its answers."""
    return plain(*_judged(row), width=_WIDTH)


def _of_engine(row: Row, examples: Sequence[Mapping[str, Any]], most: int) -> str:
    flips = sum(bool(one["flips"]) for one in examples)
    kept = f"{flips} of the {len(examples)} kept examples flip on the way" if flips else "no prediction flips on the way"
    lines = [line for one in examples[:most] for line in _example(one)]
    return plain(*_judged(row), f"The examples that change most ({kept}):", *lines, width=_WIDTH)


def _judged(row: Row) -> "Iterator[str | Table]":
    low, high = row.delta_ci95
    yield f"{row.recipe} {row.precision} ({row.engine}), {row.subject}, seed {row.seed}: {row.verdict}"
    yield (
        f"{row.metric} {row.value:.2f}, {row.delta:+.2f} [{low:+.2f}, {high:+.2f}] against the served FP32 baseline, on "
        f"{row.drawn}, by {row.served_by}"
    )
    if changes := [f"{name} {value}" for name, value in figures.changes(row).items()]:
        yield f"its answers against the baseline's: {', '.join(changes)}"
    if others := [f"{name} {value:.2f}" for name, value in row.scores.items() if name != row.metric]:
        yield f"beside it: {', '.join(others)}"
    yield from (f"- {reason}" for reason in row.reasons)
    yield _ladder(row)
    yield _invariance(row)


def _ladder(row: Row) -> "Table":
    made = table(["rung", row.metric, *_MOVED], left=("rung", ""), title="From PyTorch to the server")
    for rung, values in row.ladder.items():
        moved = _moved(values, gate.tolerance(rung, row)) if "mean" in values else [""] * 6
        made.add_row(rung, f"{values['value']:.2f}", *moved)
    return made


def _invariance(row: Row) -> "Table":
    title = "The served answer, compared with that to the example alone"
    made = table(["changed", *_MOVED], left=("changed", ""), title=title)
    for way, values in row.invariance.items():
        made.add_row(way, *_moved(values, gate.invariance_tolerance(row)))
    return made


def _moved(values: Mapping[str, float], allowed: Tolerance) -> list[str]:
    """The cells of one comparison of logits, as `_MOVED` names them."""
    return [
        f"{values['mean']:.2g}",
        f"{values['largest']:.2g}",
        f"{values['relative_mean']:.2g} / {values['relative_largest']:.2g}",
        f"{allowed.mean:.2g} / {allowed.largest:.2g}",
        f"{values['flips']:g}",
        "too far" if exceeds(values, allowed) else "",
    ]


def _example(one: Mapping[str, Any]) -> Iterator[str]:
    """The lines of one example: text and answer, what each rung says, and where it moved."""
    yield f"\nexample {one['example']}" + (f": flips at {', '.join(one['flips'])}" if one["flips"] else "")
    for name, value in one["row"].items():
        yield f"  {name}: {_cut(value)}"
    logits = one.get("logits", {})
    for rung, prediction in one["predictions"].items():
        values = f"  [{', '.join(f'{value:.3f}' for value in logits[rung])}]" if rung in logits else ""
        moved = f"  moved by {one['moved'][rung]:.2g}" if rung in one["moved"] else ""
        yield f"    {rung + ':':<9}{_cut(prediction)}{values}{moved}"


def _cut(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
