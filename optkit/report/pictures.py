"""The page's pictures: each takes result rows and gives SVG."""

from collections.abc import Sequence

from markupsafe import Markup

from optkit.evaluation.results import Row
from optkit.report import figures
from optkit.report.svg import Plot, around


def accuracy_against_latency(rows: Sequence[Row], size: str) -> Markup:
    """The metric of every row against its latency at a batch size, with the Pareto front."""
    found = figures.points(rows, size)
    plot = Plot(
        title=f"{rows[0].metric} against latency at batch {size}",
        x_label=f"median latency at batch {size}, ms",
        y_label=rows[0].metric,
        x_range=around((point.ms for point in found), margin=0.12, zero=True),
        y_range=around((end for point in found for end in (point.low, point.high, point.value)), least=0.2),
    )
    plot.line([(point.ms, point.value) for point in figures.front(found)], "front")
    for point in found:
        plot.whisker(point.ms, point.low, point.high)
    for point in found:
        hint = f"{_name(point.row)}: {point.value:.2f} at {point.ms:.1f} ms"
        plot.disc(point.ms, point.value, str(point.number), point.row.precision, hint)
    return plot.text()


def throughput_against_latency(rows: Sequence[Row], sizes: Sequence[str]) -> Markup:
    """A curve for every row through its batch sizes."""
    curves = [[(row.latency_ms[size]["p50"], row.throughput[size]) for size in sizes] for row in rows]
    plot = Plot(
        title="throughput against latency",
        x_label="median latency, ms",
        y_label="inferences/s",
        x_range=around((x for curve in curves for x, _ in curve), zero=True),
        y_range=around((y for curve in curves for _, y in curve), zero=True),
    )
    for row, curve in zip(rows, curves, strict=True):
        plot.line(curve, f"curve {row.precision}")
    for number, (row, curve) in enumerate(zip(rows, curves, strict=True), 1):
        for size, (x, y) in zip(sizes, curve, strict=True):
            hint = f"{_name(row)}, batch {size}: {y:.0f}/s at {x:.1f} ms"
            plot.disc(x, y, str(number), row.precision, hint)
    return plot.text()


def waterfall(row: Row) -> Markup:
    """What each stage costs, from the baseline to the recipe."""
    bars = figures.waterfall(row)
    ends = [value for bar in bars for value in ((bar.end,) if bar.total else (bar.start, bar.end))]
    ends += [bar.start + end for bar in bars if bar.interval for end in bar.interval]
    plot = Plot(
        title=f"loss by stage of {row.recipe}",
        x_label="",
        y_label=row.metric,
        x_range=(-0.6, len(bars) - 0.4),
        y_range=around(ends, margin=0.2, least=0.5),
        x_names=[bar.label for bar in bars],
    )
    for place, bar in enumerate(bars):
        change = bar.end - bar.start
        css = "total" if bar.total else "loss" if change < 0 else "gain"
        start = plot.y_range[0] if bar.total else bar.start
        plot.column(place, start, bar.end, css, f"{bar.label}: {bar.end if bar.total else change:+.2f}")
        if bar.interval:
            plot.whisker(place, bar.start + bar.interval[0], bar.start + bar.interval[1])
        plot.note(place, max(bar.end, start), f"{bar.end:.2f}" if bar.total else f"{change:+.2f}")
    return plot.text()


def ladder(rows: Sequence[Row]) -> Markup:
    """The metric of every row at each rung."""
    names = figures.rungs(rows)
    every = [values["value"] for row in rows for values in row.ladder.values()]
    plot = Plot(
        title=f"{rows[0].metric} from rung to rung",
        x_label="",
        y_label=rows[0].metric,
        x_range=(-0.4, len(names) - 0.6),
        y_range=around(every, margin=0.15, least=0.2),
        x_names=names,
    )
    for row in rows:
        climbed = [(names.index(rung), values["value"]) for rung, values in row.ladder.items()]
        plot.line(climbed, f"curve {row.precision}")
    for number, row in enumerate(rows, 1):
        if row.ladder:
            rung, last = list(row.ladder.items())[-1]
            hint = f"{_name(row)}: {last['value']:.2f}"
            plot.disc(names.index(rung), last["value"], str(number), row.precision, hint)
    return plot.text()


def under_load(row: Row) -> Markup:
    """Latency against throughput with more and more clients, with and without batching by the server."""
    curves, bound = figures.curves(row), row.load["p99_ms"]
    points = [point for curve in curves.values() for point in curve]
    latencies = [point["p99_ms"] for point in points] + [bound]
    plot = Plot(
        title=f"latency against throughput of {_name(row)}",
        x_label="examples/s",
        y_label="p99, ms",
        x_range=around((point["rate"] for point in points), zero=True),
        y_range=(0.7 * min(latencies), 1.4 * max(latencies)),
        log_y=True,
    )
    plot.line([(end, bound) for end in plot.x_range], "front")
    for way, curve in curves.items():
        plot.line([(point["rate"], point["p99_ms"]) for point in curve], f"curve {way}")
    for way, curve in curves.items():
        for point in curve:
            reached = f"{point['rate']:.0f}/s, p99 {point['p99_ms']:.1f} ms"
            hint = f"{point['clients']} clients, {figures.BATCHING[way]}: {reached}"
            plot.disc(point["rate"], point["p99_ms"], str(point["clients"]), way, hint)
    return plot.text()


def _name(row: Row) -> str:
    return f"{row.recipe} {row.precision}"
