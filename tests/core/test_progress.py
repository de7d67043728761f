"""Progress: where there is no terminal, lines that say how far, how fast and how long it will take."""

import re

import pytest

from optkit.core import progress


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_a_line_every_ten_seconds_has_rate_and_time_left(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "optkit")
    with progress.bar("training", 1000, done=100) as advance:
        for _ in range(30):
            clock.now += 1
            advance(4)
    assert caplog.messages == [
        "training: 140 of 1000, 4/s, 10 s, about 4 min left",
        "training: 180 of 1000, 4/s, 20 s, about 3 min left",
        "training: 220 of 1000, 4/s, 30 s, about 3 min left",
    ]


def test_what_is_slow_keeps_two_digits_of_its_rate(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "optkit")
    with progress.bar("rounds", 7) as advance:
        clock.now += 40
        advance(1)
    assert re.fullmatch(r"rounds: 1 of 7, 0\.025/s, 40 s, about 4 min left", caplog.messages[0])


def test_what_is_quick_or_silent_says_nothing(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "optkit")
    with progress.bar("scoring", 10) as advance:
        clock.now += 9
        advance(10)
    with progress.bar("scoring", 10, disable=True) as advance:
        clock.now += 90
        advance(1)
    assert caplog.messages == []
