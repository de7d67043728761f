"""Engines beside each other: each asked in turn, the fast half of the times counts."""

import time
from typing import Any

import numpy as np
import pytest

from optkit.engines import side_by_side


class Sleeping:
    """Takes a known time, and far longer every third time, as on a busy machine."""

    def __init__(self, ms: float, log: list[str], name: str) -> None:
        self.ms, self.log, self.name, self.asked = ms, log, name, 0

    def infer(self, feed: Any) -> None:
        self.asked += 1
        self.log.append(self.name)
        time.sleep(self.ms / 1e3 * (10 if self.asked % 3 == 0 else 1))


def test_they_take_turns_and_what_others_did_does_not_count() -> None:
    log: list[str] = []
    feeds = [{"input_ids": np.zeros((1, 4), np.int64)}] * 2
    asked: Any = {name: (Sleeping(ms, log, name), feeds) for name, ms in {"slow": 4.0, "fast": 1.0}.items()}
    found = side_by_side.latency_ms(asked, 0.01)
    assert log[4:] == ["slow", "fast"] * side_by_side.ROUNDS
    assert 4.0 <= found["slow"] < 20 and found["fast"] < found["slow"]
    assert found["slow"] / found["fast"] == pytest.approx(4, rel=0.6)
