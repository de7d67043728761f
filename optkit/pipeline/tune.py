"""`optkit tune`: the configuration of a recipe's engine found by measuring, within a time that the user gives."""

import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from optkit.benchmark.choice import Goal
from optkit.benchmark.measurement import ALONE
from optkit.benchmark.scratch_server import Bench, Model, scratch_server
from optkit.benchmark.search import Search
from optkit.benchmark.serving_settings import Settings
from optkit.benchmark.tuned import Kept
from optkit.core import atomic, cpu, step_cache
from optkit.core.code_version import code_version
from optkit.core.errors import InputError
from optkit.core.json_door import read_json
from optkit.core.plain_text import plain, table
from optkit.engines import registry as engines
from optkit.evaluation.artifacts import TUNING
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.system_under_test import SystemUnderTest, run_number, system_under_test
from optkit.recipe.recipe import Recipe
from optkit.serving import install
from optkit.serving.repository import BACKENDS

log = logging.getLogger(__name__)
_SHOWN = {
    "rate": "examples/s",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "mean_batch": "mean batch",
    "memory_mb": "memory MB",
}


def run(
    recipe: Recipe, spec: RunSpec, goal: Goal, minutes: float, precision: str | None = None, again: bool = False
) -> dict[str, Any]:
    """Find the configuration of one engine, and keep all that was tried; `optkit publish` takes the choice from there.

    Args:
        recipe: whose engine.
        spec: what the recipe is run on.
        goal: what to look for.
        minutes: how long to search, about.
        precision: of the engine; needed where the recipe has several.
        again: search although it was done before.

    Returns:
        What is kept: `goal`, `choice`, `trials`, `not_tried`, and what they depend on.

    Raises:
        InputError: several precisions, or not that one.
        MachineError: the server is missing or fails.
    """
    install.find()
    _check_known(precision, spec)
    asked = system_under_test(recipe, spec)
    model = _chosen(asked, precision)
    place = asked.folder / TUNING / model.precision
    depends_on = {"engines": asked.key, "goal": vars(goal), "minutes": minutes, "cores": cpu.available_threads()}

    def make(unfinished: Path) -> None:
        content = {**depends_on, "load_average": cpu.load_average(), **_search(asked, model, goal, minutes)}
        atomic.write_json(unfinished / f"{TUNING}.json", content)

    key = {**depends_on, "code": code_version(__name__, *BACKENDS), "run": run_number(place, again)}
    if step_cache.is_finished(place, step_cache.key_of(key)):
        log.info("%s: tuned before; --again searches anew", place)
    step_cache.step(place, key, make, keep=True)
    return read_json(place / f"{TUNING}.json", Kept)


def _check_known(precision: str | None, spec: RunSpec) -> None:
    runtimes = [engines.runtime(kind) for kind in spec.engines or engines.installed()]
    known = {one for runtime in runtimes for quantised in (False, True) for one in runtime.precisions(quantised)}
    if precision is not None and precision not in known:
        raise InputError(f"--precision {precision}: expected one of {', '.join(sorted(known))}")


def _chosen(asked: SystemUnderTest, precision: str | None) -> Model:
    found = [model for model in asked.models if precision in (None, model.precision)]
    if len(found) != 1:
        have, name = ", ".join(model.precision for model in asked.models), asked.models[0].recipe
        if precision is not None:
            raise InputError(f"--precision {precision}: recipe {name!r} has no such engine, expected one of {have}")
        raise InputError(f"recipe {name!r} has engines in {have}; name one of them with --precision")
    return found[0]


def _search(asked: SystemUnderTest, model: Model, goal: Goal, minutes: float) -> dict[str, Any]:
    with scratch_server([], asked.logs) as server:
        search = Search(Bench(server, asked.samples), model, goal, cpu.available_threads(), minutes * 60)
        choice = search.run()
    return {
        "choice": choice.as_dict(),
        "trials": [trial.as_dict() for trial in search.trials],
        "not_tried": [settings.as_dict() for settings in search.not_tried],
    }


def render(found: dict[str, Any]) -> str:
    """What was tried, as a table for people: a line for each configuration, its medians, the best for the goal first."""
    tried: dict[Settings, list[dict[str, Any]]] = {}
    for trial in found["trials"]:
        tried.setdefault(Settings.of(trial["settings"]), []).append(trial)
    chosen, by = Settings.of(found["choice"]["settings"]), "p50_ms" if found["goal"]["kind"] == "latency" else "rate"
    order = sorted(tried, key=lambda settings: _median(tried[settings], by), reverse=by == "rate")
    made = table(["configuration", "measured", *_SHOWN.values(), "chosen"], left=("configuration",))
    for settings in order:
        values = [f"{_median(tried[settings], name):.1f}" for name in _SHOWN]
        made.add_row(str(settings), f"{len(tried[settings])}", *values, "yes" if settings == chosen else "")
    for settings in map(Settings.of, found["not_tried"]):
        made.add_row(str(settings), "no time")
    return plain(made, width=150)


def _median(trials: Sequence[dict[str, Any]], name: str) -> float:
    """Return the median over a configuration's measurements; for memory, over those with it alone on the server."""
    kept = [trial[name] for trial in trials if name != "memory_mb" or trial["others"] == ALONE]
    return median(kept) if kept else float("nan")
