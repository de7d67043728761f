"""The comparison as one page: self-contained HTML, light and dark, readable on a phone, without a network."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

from optkit.evaluation import gate
from optkit.evaluation.results import Row
from optkit.report import figures, pictures
from optkit.report.style import CSS, SCRIPT


class Cell(NamedTuple):
    """What a cell shows, as HTML, and what it is sorted by."""

    html: str
    value: float | str | None = None
    css: str = ""


def render(rows: Sequence[Row]) -> str:
    """The page of a task's rows: one per recipe and precision is shown, over all its seeds."""
    own = figures.shown(rows)
    first = own[0]
    seeds = ", ".join(str(seed) for seed in first.seeds or (first.seed,))
    title = f"{first.task}: what each recipe costs and brings"
    told = f"{first.metric} on {first.examples:,} examples, seeds {seeds}, served by {first.served_by}"
    sections = (_table(own), _reasons(own), *_pictures(own), _ladders(own), _under_load(own), _evidence(own))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>\n<body><h1>{escape(title)}</h1>"
        f'<p class="soft">{escape(told)}</p>\n'
        + "\n".join(section for section in sections if section)
        + f"\n<script>{SCRIPT}</script></body></html>\n"
    )


def _table(rows: Sequence[Row]) -> str:
    sizes = figures.batch_sizes(rows)
    heads = ["#", "recipe", "precision", "gate", "engine", rows[0].metric, "delta", "95 %", "MB"]
    heads += [f"p50 ms @{size}" for size in sizes] + [f"speed-up @{size}" for size in sizes]
    heads += [f"vs 16-bit @{size}" for size in sizes] + ["INT8"]
    body = [_cells(number, row, sizes) for number, row in enumerate(rows, 1)]
    return f"<h2>All recipes</h2>{grid(heads, body, 'sortable')}"


def _cells(number: int, row: Row, sizes: Sequence[str]) -> list[Cell]:
    low, high = row.delta_ci95
    versus, share = row.speedup_vs_16bit or {}, row.evidence.get("int8_gemm_share")
    return [
        Cell(_number(number, row), number),
        *(Cell(escape(text), text, "text") for text in (row.recipe, row.precision)),
        Cell(escape(row.verdict), row.verdict, f"text {escape(row.verdict)}"),
        Cell(escape(row.engine), row.engine, "text"),
        Cell(f"{row.value:.2f}", row.value),
        Cell(f"{row.delta:+.2f}", row.delta),
        Cell(f"{low:+.2f} … {high:+.2f}", low),
        Cell(f"{row.size_bytes / 1e6:.1f}", row.size_bytes),
        *(Cell(f"{row.latency_ms[size]['p50']:.1f}", row.latency_ms[size]["p50"]) for size in sizes),
        *(Cell(f"{row.speedup[size]:.2f}", row.speedup[size]) for size in sizes),
        *(Cell(f"{versus[size]:.2f}" if size in versus else "", versus.get(size, "")) for size in sizes),
        Cell("" if share is None else f"{share:.0%}", "" if share is None else share),
    ]


def _number(number: int, row: Row) -> str:
    return f'<span class="number {escape(row.precision)}">{number}</span>'


def _reasons(rows: Sequence[Row]) -> str:
    items = "".join(
        f'<li>{_number(number, row)} {escape(row.recipe)} {escape(row.precision)}: <b class="{escape(row.verdict)}">'
        f"{escape(row.verdict)}</b>: {escape(reason)}</li>"
        for number, row in enumerate(rows, 1)
        for reason in row.reasons
    )
    return f"<h2>Refused, or not decided yet</h2><ul>{items}</ul>" if items else ""


def _pictures(rows: Sequence[Row]) -> Iterator[str]:
    """The sections of drawings, each with what it needs to be understood."""
    sizes, legend = figures.batch_sizes(rows), _legend(rows)
    yield _section(
        f"{rows[0].metric} against latency",
        "Median latency of one client that waits for each answer; that of the FP32 baseline over the recipe's speed-up, as "
        "both were measured in turn. The dashed line is the Pareto front: no recipe beats those on it in both. Upright "
        "lines are 95 % intervals of the difference from the baseline.",
        legend,
        {f"batch {size}": pictures.accuracy_against_latency(rows, size) for size in sizes},
    )
    yield _section(
        "Throughput against latency",
        f"One client; from left to right batches of {', '.join(sizes)}.",
        legend,
        {"all batch sizes": pictures.throughput_against_latency(rows, sizes)},
    )
    falls = {f"{row.recipe} {row.precision}": pictures.waterfall(row) for row in rows if row.stages}
    yield _section("Loss by stage", f"Points of {rows[0].metric}, with their 95 % intervals.", "", falls)
    if figures.rungs(rows):
        drawn = {"from PyTorch to the server": pictures.ladder(rows)}
        yield _section("The ladder", f"The {rows[0].metric} of the same examples at every rung.", legend, drawn)


def _under_load(rows: Sequence[Row]) -> str:
    """What `optkit load` measured: a table, and latency against throughput of each engine."""
    measured = figures.under_load(rows)
    if not measured:
        return ""
    heads = ["#", "recipe", "precision", "bound, p99 ms"]
    heads += [f"{name}, {way}" for name in ("held/s", "offline/s", "memory MB") for way in ("off", "on")]
    body = [_load_cells(number, row) for number, row in measured]
    told = (
        "Latency against throughput with 1 to 64 clients that each wait for their answer, and the highest random (Poisson) "
        "rate whose 99th percentile holds the bound, which is the dashed line; off and on is batching of requests by the "
        "server. Numbers are clients. Every recipe was measured in a run of its own: compare within a picture."
    )
    legend = "".join(f'<li><span class="number {way}">n</span> {name}</li>' for way, name in figures.BATCHING.items())
    drawn = {f"{row.recipe} {row.precision}": pictures.under_load(row) for _, row in measured if figures.curves(row)}
    clients = [gain["clients"] for _, row in measured if (gain := row.load["batching_gain"])]
    heads.append(f"gain of batching at {clients[0] if clients else '16'} clients")
    return _section("Under load", told, f'{grid(heads, body)}<ul class="legend">{legend}</ul>', drawn)


def _load_cells(number: int, row: Row) -> list[Cell]:
    found, gain = row.load, row.load["batching_gain"]
    held = [found["held"][way] for way in ("off", "on")]
    shown = [f"{point['rate']:.0f}" if point else "none" for point in held]
    if found["nearest"]:
        shown = [f"none; best {found['nearest']['p99_ms']:.1f} ms at {found['nearest']['rate']:.0f}/s", "none"]
    others = [found[name][way] for name in ("offline", "memory_mb") for way in ("off", "on")]
    return [
        Cell(_number(number, row)),
        *(Cell(escape(text), css="text") for text in (row.recipe, row.precision)),
        Cell(f"{found['p99_ms']:g}"),
        *(Cell(text) for text in shown),
        *(Cell("" if value is None else f"{value:.0f}") for value in others),
        Cell(f"{gain['ratio']:.2f} [{gain['low']:.2f}, {gain['high']:.2f}]" if gain else ""),
    ]


def _section(title: str, told: str, legend: str, drawings: Mapping[str, str]) -> str:
    if not drawings:
        return ""
    drawn = "".join(f"<figure><h3>{escape(name)}</h3>{svg}</figure>" for name, svg in drawings.items())
    told = f'<p class="soft">{escape(told)}</p>'
    return f'<h2>{escape(title[0].upper() + title[1:])}</h2>{told}{legend}<div class="pictures">{drawn}</div>'


def _legend(rows: Sequence[Row]) -> str:
    items = "".join(
        f"<li>{_number(number, row)} {escape(row.recipe)} {escape(row.precision)}</li>" for number, row in enumerate(rows, 1)
    )
    return f'<ul class="legend">{items}</ul>'


def _ladders(rows: Sequence[Row]) -> str:
    """A folded table for each row: how far each rung moves the logits, and what the server's answer depends on."""
    heads = ["", rows[0].metric, "mean", "largest", "mean over signal", "allowed", "share of the allowed", "flips"]
    found = []
    for number, row in enumerate(rows, 1):
        if not row.ladder:
            continue
        compared = [(rung, values, gate.tolerance(rung, row)) for rung, values in row.ladder.items()]
        asked = [(f"server: {way}", values, gate.invariance_tolerance(row)) for way, values in row.invariance.items()]
        body = [_rung(name, values, allowed) for name, values, allowed in (*compared, *asked)]
        far = [name for name, values, allowed in (*compared, *asked) if "mean" in values and gate.exceeds(values, allowed)]
        said = f'<b class="fail">too far at {escape(", ".join(far))}</b>' if far else "within its tolerances"
        found.append(
            f"<details{' open' if far else ''}><summary>{_number(number, row)} {escape(row.recipe)} "
            f"{escape(row.precision)}: {said}</summary>{grid(heads, body)}</details>"
        )
    return "".join(found)


def _rung(name: str, values: Mapping[str, float], allowed: gate.Tolerance) -> list[Cell]:
    value = f"{values['value']:.2f}" if "value" in values else ""
    if "mean" not in values:
        return [Cell(escape(name), css="text"), Cell(value), *[Cell("")] * 6]
    far = gate.exceeds(values, allowed)
    numbers = (values["mean"], values["largest"], values["relative_mean"], allowed.mean)
    return [
        Cell(escape(name), css="text"),
        Cell(value),
        *(Cell(f"{number:.2g}") for number in numbers),
        Cell(_bar(values["relative_mean"] / allowed.mean, far)),
        Cell(f"{values['flips']:g}"),
    ]


def _evidence(rows: Sequence[Row]) -> str:
    heads = ["#", "recipe", "precision", "products in INT8, by work", "", "encoder products quantised", "layers", "2:4"]
    body = []
    for number, row in enumerate(rows, 1):
        share = row.evidence.get("int8_gemm_share") or 0.0
        covered = [row.evidence.get(name, "") for name in ("covered_gemms", "encoder_gemms")]
        texts = (_number(number, row), escape(row.recipe), escape(row.precision), _bar(share), f"{share:.0%}")
        rest = (f"{covered[0]} of {covered[1]}", str(row.layers), escape(row.sparsity or ""))
        body.append([Cell(text, css="text" if place in (1, 2) else "") for place, text in enumerate((*texts, *rest))])
    told = "What the engine itself says it runs, and what the graph holds."
    return f'<h2>What ran in INT8</h2><p class="soft">{told}</p>{grid(heads, body)}{_operators(rows)}'


def _operators(rows: Sequence[Row]) -> str:
    """Folded: how many operators run in which precision, where the engine says so."""
    found = []
    for number, row in enumerate(rows, 1):
        counts = row.evidence.get("precision_by_type")
        if isinstance(counts, dict):
            listed = ", ".join(f"{count} × {kind}" for kind, count in counts.items())
            named = f"{_number(number, row)} {escape(row.recipe)} {escape(row.precision)}"
            found.append(f"<details><summary>{named}: operators</summary><p>{escape(listed)}</p></details>")
    return "".join(found)


def _bar(share: float, far: bool = False) -> str:
    """A share of 1 as a bar, its number being told by the cell beside it or by the hint."""
    wide = min(1.0, max(0.0, share)) * 100 if share == share else 100.0
    return f'<div class="share{" far" if far else ""}" title="{share:.1%}"><i style="width:{wide:.1f}%"></i></div>'


def grid(heads: Sequence[str], body: Sequence[Sequence[Cell]], css: str = "") -> str:
    """A table that scrolls on its own where it is wider than the page."""
    top = "".join(_head(head, css, body[0][place].css if body else "") for place, head in enumerate(heads))
    rows = "".join(f"<tr>{''.join(_cell(cell) for cell in cells)}</tr>" for cells in body)
    return f'<div class="wide"><table class="{css}"><thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table></div>'


def _head(name: str, css: str, column: str) -> str:
    inner = f"<button>{escape(name)}</button>" if css == "sortable" else escape(name)
    return f'<th scope="col"{" class=text" if "text" in column else ""}>{inner}</th>'


def _cell(cell: Cell) -> str:
    css = f' class="{cell.css}"' if cell.css else ""
    value = "" if cell.value is None else f' data-value="{escape(str(cell.value))}"'
    return f"<td{css}{value}>{cell.html}</td>"
