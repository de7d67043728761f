"""The report's pictures as PNG files, for a README or a slide; drawn with matplotlib."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from optkit.core.atomic import remedy
from optkit.core.errors import MachineError
from optkit.evaluation.results import Row
from optkit.report import figures

COLOURS = {"fp32": "#6b7480", "bf16": "#b35900", "fp16": "#7d4cc2", "int8": "#0b66c3", "fp8": "#0f7b4f"}
_WAYS = {"off": COLOURS["fp32"], "on": COLOURS["int8"]}
_LOSS, _GAIN = "#c62828", "#1a7f37"
_DPI = 150


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw everything that the rows have numbers for.

    Args:
        rows: of a task; one per recipe and precision is drawn, over all its seeds.
        folder: gets the files; made if missing.

    Returns:
        The files: `accuracy_against_latency.png`, `throughput_against_latency.png`, `ladder.png`, `int8.png`,
        `loss_by_stage.png` and `under_load.png`.

    Raises:
        MachineError: the folder cannot be written.
    """
    own = figures.shown(rows)
    pictures: dict[str, Callable[[Sequence[Row]], Figure]] = {
        "accuracy_against_latency": _accuracy_against_latency,
        "throughput_against_latency": _throughput_against_latency,
        "int8": _int8,
    }
    if figures.rungs(own):
        pictures["ladder"] = _ladder
    if any(row.stages for row in own):
        pictures["loss_by_stage"] = _loss_by_stage
    if any(figures.curves(row) for _, row in figures.under_load(own)):
        pictures["under_load"] = _under_load
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with matplotlib.rc_context({"text.parse_math": False}):  # a $ in a name is a $
            return [_save(picture(own), folder / f"{name}.png") for name, picture in pictures.items()]
    except OSError as error:
        raise MachineError(f"{folder}: the pictures cannot be written: {error.strerror}. {remedy(error)}") from error


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=_DPI)
    return path


def _panels(count: int, width: float = 4.5, height: float = 3.6) -> tuple[Figure, list[Any]]:
    """A figure with panels side by side, without the lines that show nothing."""
    figure = Figure(figsize=(width * count, height), layout="constrained")
    panels = list(figure.subplots(1, count, squeeze=False)[0])
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", color="#d5dae0", linewidth=0.7)
        panel.set_axisbelow(True)
    return figure, panels


def _accuracy_against_latency(rows: Sequence[Row]) -> Figure:
    sizes = figures.batch_sizes(rows)
    figure, panels = _panels(len(sizes))
    for panel, size in zip(panels, sizes, strict=True):
        found = figures.points(rows, size)
        best = figures.front(found)
        panel.plot([point.ms for point in best], [point.value for point in best], "--", color="#59636e", linewidth=1)
        for point in found:
            panel.vlines(point.ms, point.low, point.high, color=_colour(point.row), linewidth=1, alpha=0.6)
            _disc(panel, point.ms, point.value, point.number, point.row)
        panel.set(xlabel=f"median latency at batch {size}, ms", ylabel=rows[0].metric)
        panel.set_xlim(0, 1.08 * max(point.ms for point in found))
    _legend(figure, rows)
    return figure


def _throughput_against_latency(rows: Sequence[Row]) -> Figure:
    sizes = figures.batch_sizes(rows)
    figure, (panel,) = _panels(1, 6)
    for number, row in enumerate(rows, 1):
        curve = [(row.latency_ms[size]["p50"], row.throughput[size]) for size in sizes]
        panel.plot(*zip(*curve, strict=True), color=_colour(row))
        for ms, rate in curve:
            _disc(panel, ms, rate, number, row)
    panel.set(xlabel=f"median latency, ms (batches of {', '.join(sizes)})", ylabel="inferences/s", ylim=(0, None))
    _legend(figure, rows)
    return figure


def _ladder(rows: Sequence[Row]) -> Figure:
    names = figures.rungs(rows)
    figure, (panel,) = _panels(1, 6)
    for number, row in enumerate(rows, 1):
        climbed = [(names.index(rung), values["value"]) for rung, values in row.ladder.items()]
        if climbed:
            panel.plot(*zip(*climbed, strict=True), color=_colour(row))
            _disc(panel, *climbed[-1], number, row)
    panel.set_xticks(range(len(names)), names)
    panel.set(ylabel=rows[0].metric)
    _legend(figure, rows)
    return figure


def _disc(panel: Any, x: float, y: float, number: int, row: Row) -> None:
    """A numbered disc: names at the points would cover each other."""
    panel.plot(x, y, "o", color=_colour(row), markersize=11)
    panel.annotate(str(number), (x, y), color="white", fontsize=7, weight="bold", ha="center", va="center_baseline")


def _legend(figure: Figure, rows: Sequence[Row]) -> None:
    handles = [Line2D([], [], marker="o", linestyle="", color=_colour(row)) for row in rows]
    names = [f"{number}  {_name(row)}" for number, row in enumerate(rows, 1)]
    columns = max(1, int(figure.get_figwidth() / 2.5))
    figure.legend(handles, names, loc="outside lower center", ncols=columns, fontsize=7, frameon=False)


def _int8(rows: Sequence[Row]) -> Figure:
    figure, (panel,) = _panels(1, 6, 0.8 + 0.3 * len(rows))
    shares = [100 * (row.evidence.get("int8_gemm_share") or 0.0) for row in rows]
    panel.barh([_name(row) for row in rows], shares, color=[_colour(row) for row in rows])
    panel.set(xlabel="matrix products that run in INT8, % of their work", xlim=(0, 100))
    panel.invert_yaxis()
    return figure


def _loss_by_stage(rows: Sequence[Row]) -> Figure:
    staged = [row for row in rows if row.stages]
    figure, panels = _panels(len(staged))
    for panel, row in zip(panels, staged, strict=True):
        bars = figures.waterfall(row)
        ends = [end for bar in bars for end in ((bar.end,) if bar.total else (bar.start, bar.end))]
        room = max(0.5, max(ends) - min(ends)) * 0.3
        panel.set_ylim(min(ends) - room, max(ends) + room)
        for place, bar in enumerate(bars):
            colour = COLOURS["fp32"] if bar.total else _LOSS if bar.end < bar.start else _GAIN
            panel.bar(place, bar.end - bar.start, bottom=bar.start, width=0.7, color=colour)
            if bar.interval:
                panel.vlines(place, *(bar.start + end for end in bar.interval), color="#1b1f24", linewidth=1)
            text = f"{bar.end:.2f}" if bar.total else f"{bar.end - bar.start:+.2f}"
            panel.annotate(text, (place, max(bar.start, bar.end)), (0, 3), textcoords="offset points", ha="center")
        panel.set_xticks(range(len(bars)), [bar.label for bar in bars], fontsize=7)
        panel.set(title=_name(row), ylabel=row.metric)
    return figure


def _under_load(rows: Sequence[Row]) -> Figure:
    measured = [row for _, row in figures.under_load(rows) if figures.curves(row)]
    figure, panels = _panels(len(measured))
    for panel, row in zip(panels, measured, strict=True):
        for way, curve in figures.curves(row).items():
            rates, latencies = ([point[name] for point in curve] for name in ("rate", "p99_ms"))
            panel.plot(rates, latencies, "o-", color=_WAYS[way], label=figures.BATCHING[way])
            for point in curve:
                place = (point["rate"], point["p99_ms"])
                panel.annotate(f"{point['clients']}", place, (5, 3), textcoords="offset points", fontsize=7)
        panel.axhline(row.load["p99_ms"], linestyle="--", color="#59636e", linewidth=1)
        gain = row.load["batching_gain"]
        told = f"\nbatching brings {gain['ratio']:.2f} times at {gain['clients']} clients" if gain else ""
        panel.set_title(f"{_name(row)}{told}", fontsize=9)
        panel.set(xlabel="examples/s (at the points: clients)", ylabel="p99, ms", yscale="log")
        panel.set_xlim(0, None)
        panel.yaxis.set_major_formatter("{x:g}")  # not as a power: formulas are off
        panel.yaxis.set_minor_formatter(NullFormatter())
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7, frameon=False)
    return figure


def _colour(row: Row) -> str:
    return COLOURS.get(row.precision, COLOURS["fp32"])


def _name(row: Row) -> str:
    return f"{row.recipe} {row.precision}"
