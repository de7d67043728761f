"""What the report's pictures show, by hand."""

from dataclasses import replace

import pytest

from optkit.report import figures, pictures
from optkit.report.svg import Plot, around, log_ticks, ticks

from .test_table import BASELINE, INT8

STAGES = [
    {"stage": "distill", "delta": -0.5, "ci95": [-0.9, -0.1]},
    {"stage": "quantize", "delta": 0.2, "ci95": None},
]


def at(clients: int, rate: float, p99_ms: float) -> dict[str, float]:
    return {"clients": clients, "rate": rate, "p50_ms": p99_ms / 2, "p99_ms": p99_ms}


LOAD = {
    "p99_ms": 50.0,
    "curves": {
        "off": [at(1, 80.0, 15.0), at(64, 90.0, 900.0)],
        "on": [at(1, 75.0, 17.0), at(64, 300.0, 260.0)],
    },
    "held": {"off": {"rate": 70.0, "p99_ms": 44.0}, "on": {"rate": 160.0, "p99_ms": 48.0}},
    "nearest": None,
    "offline": {"off": 310.0, "on": 320.0},
    "memory_mb": {"off": 120.4, "on": 121.0},
    "batching_gain": {"clients": 16, "ratio": 2.5, "low": 2.1, "high": 2.8, "rounds": 5},
}
NOT_HELD = LOAD | {"held": {"off": None, "on": None}, "nearest": {"rate": 20.0, "p99_ms": 66.2}, "batching_gain": None}


def point(number: int, ms: float, value: float) -> figures.Point:
    return figures.Point(number, BASELINE, ms, value, value, value)


def test_the_front_is_what_none_beats_in_both() -> None:
    found = [point(1, 10, 95), point(2, 5, 94), point(3, 6, 93), point(4, 5, 93.5), point(5, 20, 95), point(6, 2, 90)]
    assert [one.number for one in figures.front(found)] == [6, 2, 1]


def test_latencies_of_other_runs_are_brought_to_the_baselines() -> None:
    first, second = figures.points([BASELINE, INT8], "8")  # 8.125 ms, 2.5 times as fast
    assert (first.ms, second.ms) == (8.125, pytest.approx(3.25))
    slower_run = replace(INT8, latency_ms={"8": {"p50": 100.0, "p95": 110.0, "p99": 120.0}})
    assert figures.points([BASELINE, slower_run], "8")[1].ms == pytest.approx(3.25)
    assert figures.points([slower_run], "8")[0].ms == 100.0
    assert (second.low, second.high) == (pytest.approx(94.2), pytest.approx(95.7))


def test_a_waterfall_goes_from_the_baseline_to_the_recipe() -> None:
    bars = figures.waterfall(replace(INT8, stages=STAGES))
    assert [(bar.label, bar.start, round(bar.end, 2), bar.total) for bar in bars] == [
        ("FP32", 0.0, 95.25, True),
        ("distill", 95.25, 94.75, False),
        ("quantize", 94.75, 94.95, False),
        ("served", 0.0, 94.95, True),
    ]
    assert [bar.interval for bar in bars] == [None, (-0.9, -0.1), None, None]
    assert figures.waterfall(INT8) == []


def test_a_waterfall_that_falls_is_drawn_as_losses_and_gains() -> None:
    drawn = pictures.waterfall(replace(INT8, stages=STAGES))
    assert drawn.count('class="loss"') == 1 and drawn.count('class="gain"') == 1 and drawn.count('class="total"') == 2
    assert ">-0.50<" in drawn and ">+0.20<" in drawn and ">95.25<" in drawn


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, ["0", "2", "4", "6", "8", "10"]),
        (94.1, 95.2, ["94.5", "95.0"]),
        (-1, 1, ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
        (0, 1200, ["0", "500", "1000"]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[str]) -> None:
    assert [shown for _, shown in ticks(low, high)] == expected


def test_a_range_is_never_empty() -> None:
    low, high = around([5.0, 5.0], least=1.0)
    assert low < 5.0 < high and high - low == pytest.approx(1.0)
    assert around([0.0, 10.0], margin=0.1, zero=True) == (0.0, 11.0)


def test_logarithmic_ticks_are_round_too() -> None:
    assert log_ticks(15, 1200) == [(20, "20"), (50, "50"), (100, "100"), (200, "200"), (500, "500"), (1000, "1000")]
    assert [shown for _, shown in log_ticks(0.4, 3)] == ["0.5", "1", "2"]


def test_a_curve_rises_by_equal_steps_for_equal_ratios() -> None:
    drawn = pictures.under_load(replace(INT8, load=LOAD))
    assert drawn.count('class="curve off"') == drawn.count('class="curve on"') == 1
    assert "64 clients, with batching: 300/s, p99 260.0 ms" in drawn
    plot = Plot("", "", "", (0, 1), (1, 100), log_y=True)
    assert plot.y(1) - plot.y(10) == pytest.approx(plot.y(10) - plot.y(100))
