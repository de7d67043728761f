"""How many requests speed is measured with: many of a fast model, each once of a slow one, the models in turn."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from optkit.evaluation import latency

FEEDS = [{"input_ids": np.full((1, 4), number, dtype=np.int64)} for number in range(8)]


class Clock:
    """Time that passes only while a model answers: how busy the machine is decides nothing."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s


class Model:
    """Answers after a while, and writes down whom it asked what."""

    def __init__(self, name: str, delay_s: float, clock: Clock, asked: list[tuple[str, int]]) -> None:
        self.name, self.delay_s, self.clock, self.asked = name, delay_s, clock, asked

    def infer(self, feed: Any) -> None:
        self.asked.append((self.name, int(feed["input_ids"][0, 0])))
        self.clock.now_s += self.delay_s


def measured(
    monkeypatch: pytest.MonkeyPatch, delay_s: float, seconds: float
) -> tuple[dict[str, Any], list[tuple[str, int]]]:
    asked: list[tuple[str, int]] = []
    clock = Clock()
    monkeypatch.setattr(latency, "time", clock)
    models: Any = {name: Model(name, delay_s, clock, asked) for name in ("a", "b")}
    found = latency.measure(models, {1: FEEDS}, seconds)
    return {name: of_model[1] for name, of_model in found.items()}, asked


@pytest.mark.parametrize(
    ("delay_s", "seconds", "requests"),
    [(0.001, 60.0, 200), (0.002, 0.04, 24), (0.02, 0.01, 8)],
    ids=["fast", "the time of 24 is within reach", "slow"],
)
def test_how_many_requests(delay_s: float, seconds: float, requests: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found, asked = measured(monkeypatch, delay_s, seconds)
    assert [of_model["requests"] for of_model in found.values()] == [requests] * 2
    warm_up, turns = asked[:16], asked[16:]
    assert warm_up == [(name, number) for name in ("a", "b") for number in range(8)]
    assert turns == [(name, number % 8) for number in range(requests) for name in ("a", "b")]


@pytest.mark.parametrize(("delay_s", "seconds"), [(0.001, 60.0), (0.002, 0.04), (0.02, 0.01), (0.02, 0.0)])
def test_the_progress_ends_at_a_hundred(delay_s: float, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    advanced: list[int] = []

    @contextmanager
    def bar(title: str, total: int) -> Iterator[Any]:
        assert (title, total) == ("latency at batch 1, %", 100)
        yield advanced.append

    monkeypatch.setattr(latency, "bar", bar)
    measured(monkeypatch, delay_s, seconds)
    assert sum(advanced) == 100 and min(advanced) >= 0


def test_throughput_and_percentiles_are_of_the_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    of_model = measured(monkeypatch, 0.01, 0.01)[0]["a"]
    assert [of_model[name] for name in ("p50", "p95", "p99")] == pytest.approx([10.0] * 3)
    assert of_model["throughput"] == pytest.approx(100.0)
    assert of_model["p50_ci95"] == pytest.approx([10.0, 10.0])
