"""Why a row's comparison would say nothing: a model or a baseline that has learned nothing, or a baseline that the server
answers for otherwise; as result rows keep it: `{who: {verdict, reason}}`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optkit.core.json_door import read_json
from optkit.evaluation.results import VERDICTS, Finding, Row
from optkit.evaluation.tolerance import SERVED, exceeds

if TYPE_CHECKING:  # it brings torch, without which `optkit compare` starts quickly
    from optkit.tasks.base import Prediction, Task

MODEL, BASELINE = "model", "baseline"
KEY = "degenerate"
"""Key of the finding in the evidence of an engine."""
FILE = "doubt.json"
"""File in a checkpoint with the finding of its model in PyTorch, where there is one."""


def of_predictions(task: "Task", predictions: Sequence["Prediction"]) -> dict[str, str] | None:
    """Return the verdict and the reason of the task's doubt; None without one."""
    doubt = task.degenerate(predictions)
    return {"verdict": doubt.verdict, "reason": doubt.reason} if doubt else None


def of_checkpoint(folder: Path) -> Finding | None:
    """Return the doubt of a checkpoint's model; None without one."""
    path = folder / FILE
    found: Finding | None = read_json(path, Finding, "delete its folder, it is made again") if path.is_file() else None
    return found


def of_engines(own: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> dict[str, dict[str, str]]:
    """Return the findings of a row; results of an older optkit have none.

    Args:
        own: evidence of the engine.
        baseline: evidence of the FP32 baseline's; None where it is the engine.
    """
    found = {MODEL: own.get(KEY), BASELINE: (baseline or {}).get(KEY) or _served_otherwise(baseline or {})}
    return {who: doubt for who, doubt in found.items() if doubt}


def _served_otherwise(baseline: Mapping[str, Any]) -> dict[str, str] | None:
    """The doubt of a baseline whose served answers are not those of its engine."""
    rung = baseline.get("ladder", {}).get("server")
    if rung is None or not exceeds(rung, SERVED):
        return None
    reason = f"is served with other answers than its engine gives; {rung['flips']:g} predictions flip"
    return {"verdict": "fail", "reason": reason}


def worst(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """Return the worst findings of several seeds."""
    found = {who: [row.degenerate[who] for row in rows if who in row.degenerate] for who in (MODEL, BASELINE)}
    return {who: max(doubts, key=lambda one: VERDICTS.index(one["verdict"])) for who, doubts in found.items() if doubts}
