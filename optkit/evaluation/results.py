"""Result rows: what is known of one engine of one recipe, in the fields that scripts rely on."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from optkit.core.errors import InputError
from optkit.core.json_door import checked, read_json

PERCENTILES = (50, 95, 99)
VERDICTS = ("pass", "undecided", "fail")
MOVED = ("mean", "largest", "relative_mean", "relative_largest", "flips")
"""How far logits are from others, in a ladder and in an invariance."""
CHANGES = ("kl", "flips", "nll_change")
"""How answers differ from the baseline's beside the metric; every one has an interval, `<name>_ci95`."""
LARGEST = 1e15
"""No number of a row is larger."""
REFUSED = "refused"
"""Verdict on a recipe that does not apply to the model, so that nothing was trained."""


@dataclass
class Row:
    """One engine of one recipe, scored through the server. Fields that do not apply are None.

    `delta` is in the metric's points against the served FP32 baseline of the same seed on the same examples.
    """

    recipe: str
    task: str
    seed: int | None
    """Seed of the training; None for a row over several seeds."""
    metric: str
    value: float
    baseline: float
    delta: float
    delta_ci95: list[float]
    layers: int
    sparsity: str | None
    precision: str
    engine: str
    size_bytes: int
    rungs: dict[str, float]
    latency_ms: dict[str, dict[str, float]]
    """Served latency in ms, `{batch size: {p50, p95, p99}}`."""
    throughput: dict[str, float]
    """Throughput in inferences per second by batch size, of one client that waits for each answer."""
    speedup: dict[str, float]
    """Speed-up by batch size: median latency of the FP32 baseline over this one's, measured in turn."""
    speedup_vs_16bit: dict[str, float] | None
    evidence: dict[str, Any]
    served_by: str
    max_drop: float
    """The gate's bound on the loss, in points."""
    verdict: str = "pass"
    reasons: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    """What came of the stages that a reader should know, such as a training that made nothing better."""
    scores: dict[str, float] = field(default_factory=dict)
    """Every metric of the task, served."""
    seeds: list[int] = field(default_factory=list)
    examples: int = 0
    """Number of examples scored, or of other `units`."""
    units: str = "examples"
    """What `examples` counts, which metrics are means over and intervals draw."""
    ladder: dict[str, dict[str, float]] = field(default_factory=dict)
    """Ladder, {rung: its `value`, and how far its logits are from the rung before: `mean`, `largest`, both also over the
    signal (`relative_mean`, `relative_largest`), and `flips`}; `float` is the model with its quantisers off. Over several
    seeds the largest."""
    invariance: dict[str, dict[str, float]] = field(default_factory=dict)
    """Invariance, {way to ask the server: how far its answers are from those to examples sent alone, without padding}"""
    degenerate: dict[str, dict[str, str]] = field(default_factory=dict)
    """What makes the `model` or the `baseline` no better than knowing nothing: `verdict` and `reason` of a task's `Doubt`;
    over several seeds the worst."""
    speedup_ci95: dict[str, list[float]] = field(default_factory=dict)
    p99_ms_ci95: dict[str, list[float]] = field(default_factory=dict)
    min_speedup: float | dict[str, float] | None = None
    """Gate: smallest speed-up, for every batch size or by batch size."""
    max_p99_ms: float | dict[str, float] | None = None
    """Gate: largest 99th percentile of the latency in ms, for every batch size or by batch size."""
    workload: list[list[int]] = field(default_factory=list)
    """Batches of (rows, tokens) that the engine was chosen for; empty for any."""
    groups: int = 0
    """Number of groups that intervals draw; 0 where they draw the examples."""
    kl: float | None = None
    """Mean divergence of the FP32 baseline's probabilities from this engine's, in nats, over the decisions of an example."""
    kl_ci95: list[float] | None = None
    flips: float | None = None
    """Share of the examples that are decided otherwise than by the baseline, in percent."""
    flips_ci95: list[float] | None = None
    nll_change: float | None = None
    """Change of the negative log-likelihood of what is right, in nats: above 0 it has become less likely."""
    nll_change_ci95: list[float] | None = None
    max_kl: float | None = None
    """Gate: largest divergence from the baseline, in nats."""
    max_flips: float | None = None
    """Gate: largest share of flips, in percent."""
    stages: list[dict[str, Any]] = field(default_factory=list)
    """Cost of each stage: `{stage, delta, ci95}` in points against the one before it."""
    load: dict[str, Any] = field(default_factory=dict)
    """Results of `optkit load`, see `optkit.benchmark.measurement.summary`; of several seeds the first that was measured."""
    project: str = ""
    """Name of the project; that of the task where none was named."""
    machine: str = ""
    """Processor, cores and GPUs that the speed was measured on; of several seeds all, each once."""

    @property
    def subject(self) -> str:
        """What was run: the task, and before it the project if it has another name."""
        return f"{self.project} ({self.task})" if self.project not in ("", self.task) else self.task

    @property
    def drawn(self) -> str:
        """What was scored, such as "8,021 examples in 2,210 groups"."""
        return f"{self.examples:,} {self.units}" + (f" in {self.groups:,} groups" if self.groups else "")

    @property
    def options(self) -> str:
        """Options of a command line that name task and project."""
        return f"--task {self.task}" + (f" --name {self.project}" if self.project not in ("", self.task) else "")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def _measured(self) -> Iterator[float]:
        yield from (self.value, self.baseline, self.delta, self.max_drop, self.size_bytes, self.layers, self.examples)
        yield from (*self.delta_ci95, *self.rungs.values(), *self.throughput.values(), *self.scores.values())
        for percentiles in self.latency_ms.values():
            yield from percentiles.values()
        for interval in (*self.speedup_ci95.values(), *self.p99_ms_ci95.values()):
            yield from interval
        for name in CHANGES:
            yield from (getattr(self, name) or 0.0, *(getattr(self, f"{name}_ci95") or ()))
        for values in self.ladder.values():
            yield values["value"]
        for stage in self.stages:
            yield from (stage["delta"], *(stage["ci95"] or ()))

    def flaw(self) -> str | None:
        """Return what is wrong with numbers that have the right types; None where all is well."""
        ratios = [self.speedup] if self.speedup_vs_16bit is None else [self.speedup, self.speedup_vs_16bit]
        if not self.latency_ms or any(own.keys() != self.latency_ms.keys() for own in (self.throughput, *ratios)):
            return "latency_ms, throughput and speedup are not of the same batch sizes"
        if not all(0 < ratio < math.inf for own in ratios for ratio in own.values()):
            return "a speed-up is no positive number"
        if not all(abs(number) < LARGEST for number in self._measured()):
            return "a number is none, or too large to have been measured"
        if any((getattr(self, name) is None) != (getattr(self, f"{name}_ci95") is None) for name in CHANGES):
            return f"one of {', '.join(CHANGES)} is there without its interval, or an interval without it"
        compared = [*list(self.ladder.values())[1:], *self.invariance.values()]
        if lacking := [name for name in MOVED if any(name not in values for values in compared)]:
            return f"ladder or invariance lacks {', '.join(lacking)}"
        return None


class _Percentiles(TypedDict):
    p50: float
    p95: float
    p99: float


class _Rung(TypedDict):
    value: float


class _Stage(TypedDict):
    stage: str
    delta: float
    ci95: tuple[float, float] | None


class Finding(TypedDict):
    """Why a comparison would say nothing (see `doubts`)."""

    verdict: Literal["pass", "undecided", "fail"]
    reason: str


class _Evidence(TypedDict, total=False):
    int8_gemm_share: float | None
    fp8_gemm_share: float | None
    covered_share: float | None
    variant: str
    precision_by_type: dict[str, int] | None


class _Stored(TypedDict):
    """What the fields of a row hold in a file, where their own annotations do not say it."""

    delta_ci95: tuple[float, float]
    latency_ms: dict[str, _Percentiles]
    evidence: _Evidence
    verdict: NotRequired[Literal["pass", "undecided", "fail"]]
    ladder: NotRequired[dict[str, _Rung]]
    degenerate: NotRequired[dict[Literal["model", "baseline"], Finding]]
    speedup_ci95: NotRequired[dict[str, tuple[float, float]]]
    p99_ms_ci95: NotRequired[dict[str, tuple[float, float]]]
    kl_ci95: NotRequired[tuple[float, float] | None]
    flips_ci95: NotRequired[tuple[float, float] | None]
    nll_change_ci95: NotRequired[tuple[float, float] | None]
    stages: NotRequired[list[_Stage]]


def read(path: Path) -> list[Row]:
    """Read the rows that a run has left.

    Raises:
        InputError: there are none in the file, or none that can be compared.
    """
    fix = "run the recipe again: optkit run"
    found = [Row(**row) for row in checked(read_json(path, list[Row], fix), list[_Stored], path, fix)]
    for row in found:
        if flaw := row.flaw():
            raise InputError(f"{path}: {flaw}; {fix}")
    return found


@dataclass(frozen=True)
class Refusal:
    """A recipe that does not apply to the model, in place of its rows: nothing was trained for it."""

    recipe: str
    task: str
    metric: str
    reasons: list[str]
    verdict: str = REFUSED
    project: str | None = None
    """Name of the project; that of the task where none was named."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields of a row; those that only what was measured has are None."""
        return {**dict.fromkeys(own.name for own in fields(Row)), **asdict(self)}


Result = Row | Refusal
"""What a run has to say of a recipe."""
