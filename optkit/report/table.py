"""The comparison as a table for people, as JSON and CSV for scripts, and as a page (see `html`)."""

import csv
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optkit.benchmark.measurement import sentences
from optkit.compression.registry import ordered
from optkit.core.errors import InputError
from optkit.core.plain_text import plain, table
from optkit.core.printable import cell, escaped
from optkit.evaluation.results import Refusal, Result, Row
from optkit.pipeline.loss_by_stage import SERVED
from optkit.report import figures
from optkit.report.figures import shown

if TYPE_CHECKING:
    from rich.table import Table

FORMATS = ("table", "json", "csv", "html")


def render(rows: Sequence[Result], form: str = "table") -> str:
    """Render result rows as text.

        rows = optkit.run(recipe, task, model, seeds=[0])
        print(optkit.compare(rows))

    JSON and CSV have all rows; table and HTML page have one row per recipe and precision, over all its seeds. Recipes that
    do not apply to the model are in all of them, with the reason.

    Args:
        rows: result rows and refusals, as `optkit.run` returns them.
        form: "table", "json", "csv" or "html".

    Returns:
        The rendered text.

    Raises:
        InputError: there are no rows, or the form is unknown.
    """
    measured = [row for row in rows if isinstance(row, Row)]
    refused = [row for row in rows if isinstance(row, Refusal)]
    if not measured:
        raise InputError("compare: found no rows, expected those of a run")
    if form not in FORMATS:
        raise InputError(f"compare: found {form!r}, expected one of {', '.join(FORMATS)}")
    return {"json": _json, "csv": _csv, "table": _table, "html": _page}[form](measured, refused)


def _page(rows: Sequence[Row], refused: Sequence[Refusal]) -> str:
    from optkit.report import html

    return html.render(rows, refused)


def _json(rows: Sequence[Row], refused: Sequence[Refusal]) -> str:
    return json.dumps([*(row.as_dict() for row in rows), *(refusal.as_dict() for refusal in refused)], indent=2) + "\n"


def _csv(rows: Sequence[Row], refused: Sequence[Refusal]) -> str:
    """Return the rows as CSV; nested fields become columns, such as `latency_ms.8.p50`."""
    flat = [*(dict(_flat(row.as_dict())) for row in rows), *(dict(_flat(_known(refusal))) for refusal in refused)]
    columns = list(dict.fromkeys(column for row in flat for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _known(refusal: Refusal) -> dict[str, object]:
    """What a refusal tells; nothing else was measured, not even what would be in columns of its own."""
    return {name: value for name, value in refusal.as_dict().items() if value is not None}


def _flat(content: dict, prefix: str = "") -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for key, value in content.items():
        name = escaped(f"{prefix}{key}")
        pairs += _flat(value, f"{name}.") if isinstance(value, dict) else [(name, _cell(value))]
    return pairs


def _cell(value: object) -> object:
    return json.dumps(value) if isinstance(value, list) else "" if value is None else cell(value)


def _table(rows: Sequence[Row], refused: Sequence[Refusal]) -> str:
    own = shown(rows)
    tables = [_main_table(own, refused)]
    if any(figures.changes(row) for row in own):
        tables.append(_changes_table(own))
    if any(len(row.stages) > 1 for row in own):
        tables.append(_stages_table(own))
    reasons = [f"{_name(row)}: {row.verdict}: {reason}" for row in own for reason in row.reasons]
    reasons += [f"{refusal.recipe}: {refusal.verdict}: {reason}" for refusal in refused for reason in refusal.reasons]
    loads = [sentence for row in own if row.load for sentence in sentences(_name(row), row.load)]
    remarks = [f"{_name(row)}: {remark}" for row in own for remark in (*row.remarks, *figures.slower(row))]
    return plain(*tables, *figures.machines(rows), *reasons, *remarks, *loads)


def _name(row: Row) -> str:
    return f"{row.recipe} {row.precision}"


def _main_table(rows: Sequence[Row], refused: Sequence[Refusal]) -> "Table":
    first = rows[0]
    sizes = list(first.latency_ms)
    at = "@" + "/".join(sizes)
    of_all = {_seeds(row) for row in rows}
    seeds = f" (seeds: {of_all.pop()})" if len(of_all) == 1 else ""
    title = f"{first.subject}: {first.metric} and speed, served by {first.served_by}{seeds}"
    columns = ["recipe", "precision", "engine", first.metric, "delta [95 %]", "MB", f"p50 ms {at}", f"speed-up {at}"]
    columns += ["vs 16-bit", "INT8", "gate"] + ([] if seeds else ["seeds"])
    made = table(columns, left=("recipe", "precision", "engine", "gate", "seeds"), title=title)
    for row in rows:
        made.add_row(*_cells(row, sizes), *([] if seeds else [_seeds(row)]))
    for refusal in refused:
        told = {"recipe": refusal.recipe, "gate": refusal.verdict}
        made.add_row(*(told.get(column, "") for column in columns))
    return made


def _seeds(row: Row) -> str:
    return ", ".join(str(seed) for seed in row.seeds or (row.seed,))


def _cells(row: Row, sizes: Sequence[str]) -> list[str]:
    share = row.evidence.get("int8_gemm_share")
    return [
        row.recipe,
        row.precision,
        row.engine,
        f"{row.value:.2f}",
        _interval(row.delta, row.delta_ci95),
        f"{row.size_bytes / 1e6:.1f}",
        "/".join(f"{row.latency_ms[size]['p50']:.1f}" for size in sizes),
        _ratios(row.speedup, sizes),
        _ratios(row.speedup_vs_16bit, sizes),
        "" if share is None else f"{share:.0%}",
        row.verdict,
    ]


def _changes_table(rows: Sequence[Row]) -> "Table":
    """How the answers differ from the baseline's."""
    found = [figures.changes(row) for row in rows]
    names = list(dict.fromkeys(name for changes in found for name in changes))
    title = "Answers against the FP32 baseline's [95 %]"
    made = table(["recipe", "precision", *names], left=("recipe", "precision"), title=title)
    for row, changes in zip(rows, found, strict=True):
        made.add_row(row.recipe, row.precision, *(changes.get(name, "") for name in names))
    return made


def _stages_table(rows: Sequence[Row]) -> "Table":
    """What each stage of each recipe cost, in the order of the stages."""
    found = {step["stage"] for row in rows for step in row.stages}
    order = [*ordered(found - {SERVED}), SERVED]
    title = "Loss by stage: points against the stage before [95 %]; all but the last in PyTorch"
    made = table(["recipe", "precision", *order, "in all, served"], left=("recipe", "precision"), title=title)
    for row in rows:
        steps = {step["stage"]: _interval(step["delta"], step["ci95"]) for step in row.stages}
        total = _interval(row.delta, row.delta_ci95)
        made.add_row(row.recipe, row.precision, *(steps.get(name, "") for name in order), total)
    return made


def _interval(delta: float, ci95: Sequence[float]) -> str:
    return f"{delta:+.2f} [{ci95[0]:+.2f}, {ci95[1]:+.2f}]"


def _ratios(ratios: dict[str, float] | None, sizes: Sequence[str]) -> str:
    return "" if ratios is None else "/".join(f"{ratios[size]:.2f}" for size in sizes)
