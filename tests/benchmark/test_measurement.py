"""What is said of measurements under load, by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from optkit.benchmark import colocation
from optkit.benchmark.measurement import IDLE, Measurement, Reading, by_engine, median_ratio, sentences, summary
from optkit.core.errors import InputError


def line(rate, valid=True, scenario="Server", batching=False, clients=32, p99_ms=10.0, **changes):
    reading = Reading(scenario, rate, 5.0, 8.0, p99_ms, valid)
    own = {"requests": 500, "mean_batch": 1.0, "queue_ms": 0.1, "compute_ms": 4.0, "memory_mb": 100.0} | changes
    return Measurement("qat_gelu10", "int8", batching, clients, reading, **own)


def loop(rate, clients=16, batching=False, p99_ms=10.0):
    return line(rate, True, "closed loop", batching, clients, p99_ms, others=IDLE, memory_mb=180.0)


LINES = [
    line(400.0, scenario="Offline", clients=2, memory_mb=120.0),
    line(500.0, scenario="Offline", clients=2, batching=True),
    *(loop(100.0 * clients, clients, p99_ms=clients) for clients in (1, 4)),
    *(loop(rate) for rate in (200.0, 210.0, 180.0)),
    *(loop(rate, batching=True) for rate in (300.0, 294.0, 288.0)),
    line(90.0),
    line(120.0, batching=True, p99_ms=42.0),
    line(150.0, valid=False),
]


def test_a_summary_has_the_curves_the_rate_held_and_what_batching_brings():
    found = summary(LINES, 50.0)
    assert [(point["clients"], point["rate"]) for point in found["curves"]["off"]] == [(1, 100), (4, 400), (16, 200)]
    assert [(point["clients"], point["rate"]) for point in found["curves"]["on"]] == [(16, 294)]
    assert found["held"] == {"off": {"rate": 90.0, "p99_ms": 10.0}, "on": {"rate": 120.0, "p99_ms": 42.0}}
    assert (found["nearest"], found["offline"]) == (None, {"off": 400.0, "on": 500.0})
    assert found["memory_mb"] == {"off": 120.0, "on": 100.0}, "another model was loaded beside those in turn"
    assert found["queue"]["off"] == [{"rate": 90.0, "per_compute": 0.025}], "150/s broke the bound"
    # neighbouring rounds: 300/200, 294/210, 288/180
    assert found["batching_gain"] == {"clients": 16, "ratio": 1.5, "low": 1.4, "high": 1.6, "rounds": 3}


def test_what_the_measurements_say():
    assert sentences("int8", summary(LINES, 50.0)) == [
        "int8: 120/s are held with a p99 of 42.0 ms (with batching)",
        "int8: batching by the server brings 1.50 times the throughput at 16 clients (95 % interval 1.40 to 1.60, 3 rounds "
        "in turn)",
    ]


def test_a_bound_that_no_rate_holds_is_said_with_the_best_that_was_reached():
    broken = [line(90.0, valid=False, p99_ms=80.0), line(45.0, valid=False, p99_ms=60.0)]
    found = summary(broken, 50.0)
    assert found["nearest"] == {"rate": 45.0, "p99_ms": 60.0}
    assert sentences("int8", found) == ["int8: no rate holds a p99 of 50 ms; the best was 60.0 ms at 45/s"]


def test_a_line_is_flat_and_comes_back():
    content = line(90.0).as_dict()
    assert content["batching"] == "off" and content["scenario"] == "Server" and content["rate"] == 90.0
    assert not any(isinstance(value, dict | Reading) for value in content.values())
    assert [Measurement.of(one.as_dict(), Path("load.json")) for one in LINES] == LINES


def test_lines_are_told_apart_by_engine():
    assert {name: len(own) for name, own in by_engine(LINES).items()} == {"qat_gelu10 int8": len(LINES)}


@pytest.mark.parametrize(("theirs", "decided"), [([100, 101, 99, 100, 102], True), ([150, 60, 140, 70, 90], False)])
def test_noise_makes_the_interval_of_a_ratio_wide(theirs, decided):
    ratio, low, high = median_ratio([110, 111, 109, 112, 110], theirs)
    assert low <= ratio <= high
    assert (low > 1) == decided


def test_what_models_do_to_each_other_is_said_of_each():
    def of(precision, rate, p99_ms, others):
        return replace(loop(rate, 4, p99_ms=p99_ms), precision=precision, others=others)

    lines = [of("int8", 100.0, 10.0, ""), of("int8", 98.0, 11.0, "idle"), of("int8", 40.0, 30.0, "busy")] * 3
    lines += [of("fp32", 50.0, 20.0, ""), of("fp32", 50.0, 20.0, "idle"), of("fp32", 30.0, 40.0, "busy")] * 3
    assert colocation.sentences(lines) == [
        "qat_gelu10 int8: beside qat_gelu10 fp32 it keeps 98% [98%, 98%] of its throughput while they are merely loaded and "
        "40% [40%, 40%] while they are asked as much (4 clients each); p99 10.0 ms alone, 11.0 and 30.0 ms so",
        "qat_gelu10 fp32: beside qat_gelu10 int8 it keeps 100% [100%, 100%] of its throughput while they are merely loaded "
        "and 60% [60%, 60%] while they are asked as much (4 clients each); p99 20.0 ms alone, 20.0 and 40.0 ms so",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"p99_ms": 0.0}, "load.json: a latency is no positive number; measure again: optkit load --again"),
        ({"p99_ms": float("inf")}, "a latency is no positive number"),
        ({"clients": "many"}, 'clients is "many", expected a whole number'),
        ({"rate": None}, "reading.rate is null, expected a number"),
        ({"surprise": 1}, "has surprise, which no such record has"),
    ],
)
def test_a_line_of_something_else_is_refused(change, said):
    with pytest.raises(InputError) as error:
        Measurement.of({**LINES[0].as_dict(), **change}, Path("load.json"))
    assert said in str(error.value)
