"""Pictures of what was looked for: what each module costs, and the front of a search; PNG or SVG by the file's ending."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from optkit.core.atomic import remedy
from optkit.core.errors import MachineError
from optkit.pipeline.module_costs import WORDS, Cost
from optkit.pipeline.search_goal import SIZE, Goal
from optkit.pipeline.search_run import Found
from optkit.pipeline.search_study import Tried
from optkit.report.png import COLOURS

_TECHNIQUES = {"quantize": COLOURS["int8"], "sparsify": COLOURS["bf16"]}
_DPI = 150
_MARKERS = "os^Dv"
"""One for each model."""


def sensitivity(costs: Sequence[Cost], path: Path) -> None:
    """Draw what each module costs when it alone is changed, a panel for each technique.

    Raises:
        MachineError: the file cannot be written.
    """
    with matplotlib.rc_context({"text.parse_math": False}):  # a $ in a name is a $
        _save(_sensitivity(costs), path)


def _sensitivity(costs: Sequence[Cost]) -> Figure:
    modules = {name: [one for one in costs if one.technique == name and one.is_module] for name in WORDS}
    shown = {name: own for name, own in modules.items() if own}
    longest = max(map(len, shown.values()))
    figure = Figure(figsize=(6 * len(shown), 1.2 + 0.16 * longest), layout="constrained")
    for panel, (name, own) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        panel.barh([one.part for one in own], [one.divergence for one in own], color=_TECHNIQUES[name])
        panel.set(xlabel=own[0].unit, title=f"{own[0].model}: each module alone in {WORDS[name]}")
        panel.tick_params(axis="y", labelsize=6)
        panel.spines[["top", "right"]].set_visible(False)
        panel.invert_yaxis()
        panel.margins(y=0.01)
    return figure


def front(found: Found, path: Path) -> None:
    """Draw every trial, every model's baseline, the front, and the finalists with their intervals on the part never seen.

    Raises:
        MachineError: the file cannot be written.
    """
    with matplotlib.rc_context({"text.parse_math": False}):
        _save(_front(found), path)


def _front(found: Found) -> Figure:
    goal = found.plan.goal
    figure = Figure(figsize=(8, 5), layout="constrained")
    panel = figure.subplots()
    for model, name in enumerate(found.plan.models):
        groups: dict[str, list[Tried]] = {}
        for one in found.tried:
            if one.model == model:
                groups.setdefault(" + ".join(stage.technique for stage in one.stages) or "FP32 baseline", []).append(one)
        for technique, own in groups.items():
            label = f"{technique}, {name}" if len(found.plan.models) > 1 else technique
            points = [(_x(one.outcome.cost, goal), one.outcome.delta.points) for one in own]
            panel.plot(*zip(*points, strict=True), _MARKERS[model % len(_MARKERS)], markersize=5, alpha=0.6, label=label)
    best = sorted((_x(one.outcome.cost, goal), one.outcome.delta.points) for one in found.front)
    panel.plot(*zip(*best, strict=True), "--", color="#59636e", linewidth=1, label="front of the trials")
    for number, final in enumerate(found.finals, 1):
        x = _x(final.cost, goal)
        panel.vlines(x, final.reported.low, final.reported.high, color="#1b1f24", linewidth=1)
        panel.plot(x, final.reported.points, "o", color=COLOURS.get(final.row.precision, COLOURS["fp32"]), markersize=11)
        place: dict[str, Any] = {"ha": "center", "va": "center_baseline", "color": "white", "fontsize": 7, "weight": "bold"}
        panel.annotate(str(number), (x, final.reported.points), **place)
    panel.axhline(-goal.max_drop, color="#c62828", linewidth=1, label=f"budget: {goal.max_drop:g} points")
    across = "engine, MB" if goal.kind == SIZE else f"speed-up over the FP32 baseline, {goal.kind}"
    panel.set(xlabel=across, ylabel=f"{found.finals[0].row.metric}: points from the FP32 baseline")
    panel.set_title("small: trials on a part of the data; numbered: in full, served, on dev never seen", fontsize=9)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", color="#d5dae0", linewidth=0.7)
    panel.legend(fontsize=7, frameon=False)
    return figure


def _x(cost: float, goal: Goal) -> float:
    return cost if goal.kind == SIZE else 1 / cost


def _save(figure: Figure, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=_DPI)
    except OSError as error:
        raise MachineError(f"{path}: the picture cannot be written: {error.strerror}. {remedy(error)}") from error
