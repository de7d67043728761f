"""What the report's pictures show, as numbers: the page draws them as SVG, `plots` as PNG."""

from collections.abc import Sequence
from dataclasses import dataclass

from optkit.evaluation.results import Row
from optkit.recipe.stage import BASELINE

_FP32 = "fp32"


@dataclass(frozen=True)
class Point:
    """A row in a plot of the metric against latency."""

    number: int
    """Number of the row, from 1."""
    row: Row
    ms: float
    value: float
    low: float
    high: float
    """Ends of the metric's 95 % interval: the baseline's value with the delta's interval."""


@dataclass(frozen=True)
class Bar:
    """One step of a waterfall, from one value of the metric to the next."""

    label: str
    start: float
    end: float
    interval: tuple[float, float] | None
    """Interval of the step's delta, in points."""
    total: bool = False
    """The bar stands on the ground: what was there before and after all steps."""


def shown(rows: Sequence[Row]) -> list[Row]:
    """One row per recipe and precision: the one over all seeds where there is one."""
    return [row for row in rows if row.seed is None or not any(_pools(other, row) for other in rows)]


def machines(rows: Sequence[Row]) -> list[str]:
    """Say what machines the speeds were measured on: one sentence, or one for each machine with its recipes.

    Args:
        rows: with unknown machines where an older optkit wrote them.
    """
    found: dict[str, list[str]] = {}
    for row in [row for row in rows if row.seed is not None] or rows:
        found.setdefault(row.machine or "a machine that was not written down", []).append(row.recipe)
    if not any(row.machine for row in rows):
        return []
    if len(found) == 1:
        return [f"measured on {next(iter(found))}"]
    compared = "speeds of different machines do not compare, speed-ups over the baseline beside it do"
    return [*(f"measured on {name}: {', '.join(dict.fromkeys(own))}" for name, own in found.items()), compared]


def slower(row: Row) -> list[str]:
    """Say at which batch sizes an engine of fewer bits is slower than FP32, its whole interval below 1."""
    if row.precision == _FP32:
        return []
    sizes = [size for size, (_, high) in row.speedup_ci95.items() if high < 1]
    said = ", ".join(f"{row.speedup[size]:.2f} times its speed at batch {size}" for size in sizes)
    return [f"slower than FP32: {said}"] if sizes else []


def batch_sizes(rows: Sequence[Row]) -> list[str]:
    """Return the batch sizes that every row was measured at."""
    return [size for size in rows[0].latency_ms if all(size in row.speedup for row in rows)]


def points(rows: Sequence[Row], size: str) -> list[Point]:
    """The metric against the median latency at a batch size.

    Milliseconds of different runs do not compare, and each recipe is measured in a run of its own beside the baseline:
    so a row's latency is that of the FP32 baseline over the row's speed-up. Without the baseline's row they are its own.
    """
    base = next((row.latency_ms[size]["p50"] for row in rows if (row.recipe, row.precision) == (BASELINE, _FP32)), None)
    return [
        Point(
            number=number,
            row=row,
            ms=row.latency_ms[size]["p50"] if base is None else base / row.speedup[size],
            value=row.value,
            low=row.baseline + row.delta_ci95[0],
            high=row.baseline + row.delta_ci95[1],
        )
        for number, row in enumerate(rows, 1)
    ]


def front(found: Sequence[Point]) -> list[Point]:
    """The Pareto front, the fastest first: the points that none beats both in latency and in the metric."""
    best: list[Point] = []
    for point in sorted(found, key=lambda point: (point.ms, -point.value)):
        if not best or point.value > best[-1].value:
            best.append(point)
    return best


def waterfall(row: Row) -> list[Bar]:
    """Return the steps from the baseline's metric to the row's, stage by stage; empty if stages were not measured."""
    if not row.stages:
        return []
    bars = [Bar("FP32", 0.0, row.baseline, None, total=True)]
    value = row.baseline
    for stage in row.stages:
        low, high = stage.get("ci95") or (None, None)
        interval = None if low is None or high is None else (low, high)
        bars.append(Bar(stage["stage"], value, value + stage["delta"], interval))
        value += stage["delta"]
    return [*bars, Bar("served", 0.0, row.value, None, total=True)]


def changes(row: Row) -> dict[str, str]:
    """How a row's answers differ from the baseline's, with 95 % intervals; empty where nothing is known."""
    shown = {
        "KL (nats)": (row.kl, row.kl_ci95, ".4f"),
        "flips (%)": (row.flips, row.flips_ci95, ".2f"),
        "NLL (nats)": (row.nll_change, row.nll_change_ci95, "+.4f"),
    }
    return {
        name: f"{value:{form}} [{ci95[0]:{form}}, {ci95[1]:{form}}]"
        for name, (value, ci95, form) in shown.items()
        if value is not None and ci95 is not None
    }


def rungs(rows: Sequence[Row]) -> list[str]:
    """All rungs of the rows' ladders, from the first to the last."""
    longest = max((row.ladder for row in rows), key=len, default={})
    return list(longest)


def under_load(rows: Sequence[Row]) -> list[tuple[int, Row]]:
    """The rows that `optkit load` measured, with their numbers."""
    return [(number, row) for number, row in enumerate(rows, 1) if row.load]


def curves(row: Row) -> dict[str, list[dict[str, float]]]:
    """The closed loops of a row, {off, on: points by rising number of clients}; without those that were not measured."""
    return {way: points for way, points in row.load["curves"].items() if points}


BATCHING = {"off": "without batching", "on": "with batching"}


def _pools(row: Row, other: Row) -> bool:
    return row.seed is None and (row.recipe, row.precision) == (other.recipe, other.precision)
