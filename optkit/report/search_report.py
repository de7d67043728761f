"""What a search has found, for people."""

from optkit.core.plain_text import plain, table
from optkit.pipeline.search_finals import Final
from optkit.pipeline.search_goal import SIZE
from optkit.pipeline.search_run import Found


def render(found: Found) -> str:
    """Return the ranked finalists as a table, and what a reader should know."""
    goal, metric = found.plan.goal, found.finals[0].row.metric
    columns = ["", "recipe", "model", "precision", "engine", "MB", metric, "chosen on", "never seen"]
    columns += [] if goal.kind == SIZE else [f"speed-up, {goal.kind}"]
    columns += ["p99 ms"] if goal.p99_ms else []
    title = f"{goal.kind} within {goal.max_drop:g} points of {found.plan.models[0]} in FP32: deltas on two parts of dev"
    left = ("recipe", "model", "precision", "engine", "budget")
    made = table([*columns, "budget"], left=left, title=title)
    for number, final in enumerate(found.finals, 1):
        made.add_row(str(number), *_cells(final, found))
    files = [f"{final.recipe}: {final.file}, whose last line repeats it" for final in _once(found.finals) if final.file]
    trials = len(found.tried) - len(found.plan.models)
    counted = (
        f"{trials} trials, {len(found.front)} of them and of the baselines on the front, {found.plan.out} has their recipes"
    )
    return plain(made, *found.said, *_noted(found.finals), counted, *files)


def _cells(final: Final, found: Found) -> list[str]:
    goal, row = found.plan.goal, final.row
    cells = [final.recipe, final.model, row.precision, row.engine, f"{row.size_bytes / 1e6:.1f}", f"{row.value:.2f}"]
    cells += [str(final.chosen), str(final.reported)]
    cells += [] if goal.kind == SIZE else [f"{1 / final.cost:.2f}"]
    cells += [f"{row.latency_ms[str(goal.batch_size)]['p99']:.1f}"] if goal.p99_ms else []
    return [*cells, final.verdict(final.reported, goal.max_drop)]


def _noted(finals: list[Final]) -> list[str]:
    """Why gates fail, and what else a reader should know of an engine, such as that another was faster."""
    return [
        f"{final.recipe} {final.row.precision}: {said}"
        for final in finals
        for said in dict.fromkeys([*(f"its gate fails, {why}" for why in final.refused), *final.row.remarks])
    ]


def _once(finals: list[Final]) -> list[Final]:
    """The first final of each recipe."""
    return list({final.recipe: final for final in reversed(finals)}.values())[::-1]
