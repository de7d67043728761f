"""Choice of a configuration: the goal, and whether a candidate is better by more than noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from optkit.benchmark.measurement import Measurement, median_ratio
from optkit.benchmark.serving_settings import Settings
from optkit.core.errors import InputError
from optkit.serving.front import crowd

MOST_CLIENTS = crowd.MOST - 12
"""Clients that a server takes at the same time, with a few connections left for who looks at its statistics."""
KINDS = ("latency", "throughput")
Gain = tuple[float, float, float]
"""A ratio with its 95 % interval."""


@dataclass(frozen=True)
class Goal:
    """Goal of the search."""

    kind: str
    """One of `KINDS`: the lowest median latency, or the highest throughput."""
    clients: int
    """Number of concurrent clients, each waiting for its answer."""
    p99_ms: float | None = None
    """Bound that the 99th percentile has to hold."""

    def __post_init__(self) -> None:
        if not 1 <= self.clients <= MOST_CLIENTS:
            raise InputError(
                f"{self.clients} clients: expected 1 to {MOST_CLIENTS}, as the server takes {crowd.MOST} connections and "
                "refuses what comes beyond them. Give --clients fewer"
            )

    def value(self, line: Measurement) -> float:
        """Return the figure to maximise."""
        return 1e3 / line.reading.p50_ms if self.kind == "latency" else line.reading.rate

    def holds(self, p99_ms: float) -> bool:
        """Whether the bound is held, if there is one."""
        return self.p99_ms is None or p99_ms <= self.p99_ms


@dataclass(frozen=True)
class Trial:
    """One measurement of one candidate."""

    phase: str
    settings: Settings
    line: Measurement

    def as_dict(self) -> dict[str, Any]:
        """Return the fields in JSON types."""
        return {"phase": self.phase, "settings": self.settings.as_dict(), **self.line.as_dict()}


@dataclass(frozen=True)
class Choice:
    """Result of a search."""

    settings: Settings
    held: bool
    """Whether the chosen settings hold the bound."""
    reason: str
    gain: Gain | None = None
    """Gain over the default; None if the default stays."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields in JSON types."""
        gain = None if self.gain is None else dict(zip(("ratio", "low", "high"), self.gain, strict=True))
        return {"settings": self.settings.as_dict(), "held": self.held, "reason": self.reason, "gain": gain}


def rank(goal: Goal, lines: Sequence[Measurement]) -> tuple[bool, float]:
    """The lower the better, from all measurements of a candidate: those that hold the bound come before those that do
    not; then by what is looked for, or by how near they come to the bound."""
    p99_ms = _p99_ms(lines)
    return (False, -median(map(goal.value, lines))) if goal.holds(p99_ms) else (True, p99_ms)


def choose(goal: Goal, default: Settings, final: Sequence[Trial], tried: int) -> Choice:
    """The best finalist that is better than the default by more than the rounds scatter, else the default.

    Args:
        goal: what was looked for.
        default: of the model.
        final: the rounds of the finalists, the default among them.
        tried: how many configurations there were before.
    """
    lines: dict[Settings, list[Measurement]] = {}
    for trial in final:
        lines.setdefault(trial.settings, []).append(trial.line)
    ranked = sorted(lines, key=lambda settings: rank(goal, lines[settings]))
    if not goal.holds(p99_ms := _p99_ms(lines[ranked[0]])):
        return Choice(default, False, _none_holds(goal, ranked[0], p99_ms, tried))
    held = goal.holds(_p99_ms(lines[default]))
    gains = {settings: _gain(goal, own, lines[default], held) for settings, own in lines.items() if settings != default}
    for settings in ranked:
        if settings != default and goal.holds(_p99_ms(lines[settings])) and gains[settings][1] > 1:
            said = f"{settings}: {_shown(gains[settings])} times as good as the default in {_what(goal, held)}"
            return Choice(settings, True, f"{said}, over {len(lines[settings])} rounds in turn", gains[settings])
    return Choice(default, held, _stays(goal, held, gains))


def _gain(goal: Goal, own: Sequence[Measurement], other: Sequence[Measurement], default_holds: bool) -> Gain:
    """Return the gain over the default in the goal's figure, or in the 99th percentile if the default breaks the bound."""
    if default_holds:
        return median_ratio([goal.value(line) for line in own], [goal.value(line) for line in other])
    return median_ratio([line.reading.p99_ms for line in other], [line.reading.p99_ms for line in own])


def _none_holds(goal: Goal, nearest: Settings, p99_ms: float, tried: int) -> str:
    return (
        f"none of {tried} configurations holds a p99 of {goal.p99_ms:g} ms with {goal.clients} clients; the best was "
        f"{p99_ms:.1f} ms, with {nearest}. The default stays. Raise --p99-ms, or expect fewer --clients"
    )


def _stays(goal: Goal, held: bool, gains: Mapping[Settings, Gain]) -> str:
    said = "the default stays" if held else "the default stays, although it breaks the bound"
    if not gains:
        return f"{said}: there was nothing else to try"
    best = max(gains, key=lambda settings: gains[settings][0])
    times = f"{_shown(gains[best])} times as good in {_what(goal, held)}"
    return f"{said}: the best other, {best}, is {times}, which is no more than noise or breaks the bound"


def _what(goal: Goal, default_holds: bool) -> str:
    if not default_holds:
        return "the 99th percentile"
    return "median latency" if goal.kind == "latency" else "throughput"


def _p99_ms(lines: Sequence[Measurement]) -> float:
    return median(line.reading.p99_ms for line in lines)


def _shown(gain: Gain) -> str:
    return f"{gain[0]:.2f} [{gain[1]:.2f}, {gain[2]:.2f}]"
