"""Result rows: what is known of one engine of one recipe, in the fields that scripts rely on."""

from dataclasses import asdict, dataclass, field
from statistics import geometric_mean
from typing import Any

PERCENTILES = (50, 95, 99)


@dataclass
class Row:
    """One engine of one recipe, scored through the server. Fields that do not apply are None.

    `delta` is in the metric's points against the served FP32 baseline of the same seed on the same examples.
    """

    recipe: str
    task: str
    seed: int | None
    """None where several seeds are pooled."""
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
    """{batch size: {p50, p95, p99}}"""
    throughput: dict[str, float]
    """{batch size: inferences per second of one client that waits for each answer}"""
    speedup: dict[str, float]
    """{batch size: median latency of the FP32 baseline over this one's, measured in turn}"""
    speedup_vs_16bit: dict[str, float] | None
    evidence: dict[str, Any]
    served_by: str
    max_drop: float
    """Of the gate, in points."""
    verdict: str = "pass"
    reasons: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    """Every metric of the task, served."""
    seeds: list[int] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)
    """What each stage cost: `{stage, delta, ci95}` in points against the one before it."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(row: Row) -> tuple[str, list[str]]:
    """Verdict and reasons of the gate: by the interval and not by the point value.

    `pass`: the whole interval is above the largest drop allowed; `fail`: all of it is below, or the engine is not what
    its recipe promises; else `undecided`.
    """
    (low, high), max_drop = row.delta_ci95, row.max_drop
    failures = _broken_promises(row)
    if high < -max_drop:
        failures.append(f"delta {row.delta:+.2f} [{low:+.2f}, {high:+.2f}] is below -{max_drop:g} points")
    if failures:
        return "fail", failures
    if low < -max_drop:
        return "undecided", [
            f"delta {row.delta:+.2f} [{low:+.2f}, {high:+.2f}] reaches below -{max_drop:g} points: "
            "more evaluation examples or seeds would decide"
        ]
    return "pass", []


def _broken_promises(row: Row) -> list[str]:
    share = row.evidence.get("int8_gemm_share")
    if row.precision == "int8" and share is not None and share < 0.9:
        return [f"only {share:.0%} of the matrix products run in INT8"]
    return _broken_on_a_gpu(row) if row.engine == "tensorrt" else []


def _broken_on_a_gpu(row: Row) -> list[str]:
    """What INT8 and 2:4 are for on a GPU: to be faster than 16 bits, by kernels that skip the zeros."""
    lines = []
    ratios = row.speedup_vs_16bit or {}
    if row.precision == "int8" and ratios and geometric_mean(ratios.values()) < 1:
        lines.append(f"the INT8 engine is slower than the 16-bit one ({_listed(ratios)})")
    if row.sparsity == "2:4" and row.evidence.get("sparse_layers_chosen") == 0:
        eligible = row.evidence.get("sparse_layers_eligible")
        lines.append(f"no layer runs a 2:4 kernel ({eligible if eligible is not None else 'unknown'} were eligible)")
    return lines


def _listed(ratios: dict[str, float]) -> str:
    return ", ".join(f"{ratio:.2f}x at batch {size}" for size, ratio in ratios.items())


