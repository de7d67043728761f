"""The comparison as a table for people, as JSON and CSV for scripts, and as a page (see `page`)."""

import csv
import io
import json
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from optkit.benchmark.measurement import sentences
from optkit.compression.registry import ordered
from optkit.evaluation.results import Row
from optkit.pipeline.loss_by_stage import SERVED
from optkit.report import html
from optkit.report.figures import shown

FORMATS = ("table", "json", "csv", "html")
_WIDTH = 200


def render(rows: Sequence[Row], form: str) -> str:
    """All rows as JSON or CSV; as a table or a page, one row per recipe and precision, over all its seeds."""
    return {"json": _json, "csv": _csv, "table": _table, "html": html.render}[form](rows)


def _json(rows: Sequence[Row]) -> str:
    return json.dumps([row.as_dict() for row in rows], indent=2) + "\n"


def _csv(rows: Sequence[Row]) -> str:
    """Nested fields become columns of their own, as `latency_ms.8.p50`."""
    flat = [dict(_flat(row.as_dict())) for row in rows]
    columns = list(dict.fromkeys(column for row in flat for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(content: dict, prefix: str = "") -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for key, value in content.items():
        name = f"{prefix}{key}"
        pairs += _flat(value, f"{name}.") if isinstance(value, dict) else [(name, _cell(value))]
    return pairs


def _cell(value: object) -> object:
    return json.dumps(value) if isinstance(value, list) else "" if value is None else value


def _table(rows: Sequence[Row]) -> str:
    own = shown(rows)
    text = io.StringIO()
    console = Console(file=text, width=_WIDTH, force_terminal=False, markup=False, emoji=False)
    console.print(_rich_table(own))
    if any(len(row.stages) > 1 for row in own):
        console.print(_stages_table(own))
    for row in own:
        for reason in row.reasons:
            console.print(f"{row.recipe} {row.precision}: {row.verdict}: {reason}", soft_wrap=True)
    for row in own:
        for sentence in sentences(f"{row.recipe} {row.precision}", row.load) if row.load else ():
            console.print(sentence, soft_wrap=True)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _rich_table(rows: Sequence[Row]) -> Table:
    first = rows[0]
    sizes = list(first.latency_ms)
    at = "@" + "/".join(sizes)
    of_all = {_seeds(row) for row in rows}
    seeds = f" (seeds: {of_all.pop()})" if len(of_all) == 1 else ""
    title = f"{first.task}: {first.metric} and speed, served by {first.served_by}{seeds}"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")
    for column in ("recipe", "precision", "engine"):
        table.add_column(column, no_wrap=True)
    for column in (first.metric, "delta [95 %]", "MB", f"p50 ms {at}", f"speed-up {at}", "vs 16-bit", "INT8"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("gate", no_wrap=True)
    if not seeds:
        table.add_column("seeds", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row, sizes), *([] if seeds else [_seeds(row)]))
    return table


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


def _stages_table(rows: Sequence[Row]) -> Table:
    """What each stage of each recipe cost, in the order of the stages."""
    found = {step["stage"] for row in rows for step in row.stages}
    order = [*ordered(found - {SERVED}), SERVED]
    title = "Loss by stage: points against the stage before [95 %]; all but the last in PyTorch"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")
    table.add_column("recipe", no_wrap=True)
    table.add_column("precision", no_wrap=True)
    for name in (*order, "in all, served"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        steps = {step["stage"]: _interval(step["delta"], step["ci95"]) for step in row.stages}
        total = _interval(row.delta, row.delta_ci95)
        table.add_row(row.recipe, row.precision, *(steps.get(name, "") for name in order), total)
    return table


def _interval(delta: float, ci95: Sequence[float]) -> str:
    return f"{delta:+.2f} [{ci95[0]:+.2f}, {ci95[1]:+.2f}]"


def _ratios(ratios: dict[str, float] | None, sizes: Sequence[str]) -> str:
    return "" if ratios is None else "/".join(f"{ratios[size]:.2f}" for size in sizes)
