"""The gate: pass, fail or undecided, by intervals and not by point values, with the reason for each refusal."""

import math
from collections.abc import Iterator, Mapping

from optkit.core.errors import OptkitError
from optkit.engines import registry as engines
from optkit.engines.candidate import EIGHT_BIT, LEAST_SHARE
from optkit.evaluation import doubts
from optkit.evaluation.results import VERDICTS, Row
from optkit.evaluation.tolerance import SERVED, Tolerance, exceeds

Finding = tuple[str, str]
"""A verdict with its reason."""


ARITHMETIC = {
    "f32": Tolerance(1e-4, 1e-3),
    "bf16": Tolerance(0.02, 0.4),
    "int8": Tolerance(0.04, 1.0),
    "int8, bf16": Tolerance(0.1, 1.5),
}
"""Tolerance from the graph as written to an engine, by the engine's arithmetic: float32 rounds at 2^-24, bf16 at 2^-9, and
INT8 turns a rounding in what stays float into a whole step of a scale."""

NOISE = {"int8": Tolerance(0.6, 2.0), "int8, bf16": Tolerance(1.5, 4.0)}
"""Tolerance of INT8 in multiples of the change by quantization itself, from `float` to `pytorch`, where that is known. A
rounding that falls otherwise draws that noise anew and does not add to it, while a wrong scale does."""

REDRAWN = 1.5
"""Tolerance of INT8 in multiples of what rounding in float32 alone was measured to draw anew, where that is more."""

QUANTISED = Tolerance(0.5, math.inf)
"""Tolerance of the rung `pytorch` against `float`: what quantization costs is judged by the delta, and this finds
quantisers that destroy the model."""


def judge(row: Row) -> tuple[str, list[str]]:
    """Verdict and reasons of a row, by its own thresholds (`max_drop`, `max_kl`, …, `max_p99_ms`) and the tolerances.

    `fail`: an interval lies wholly beyond its threshold, a rung or the server's answers move more than they may, the engine
    is not what its recipe promises or slower than 16 bits, or the model or its baseline has learned nothing. `undecided`: an
    interval holds its threshold, and the reason says how much more measuring would decide; there are too few examples to
    tell the model from one that has learned nothing; or nothing here knows the engine's kind. Else `pass`.
    """
    rules = (_degenerate, _promises, _sixteen_bit, _ladder, _invariance, _drop, _changes, _speed, _p99)
    findings = [finding for rule in rules for finding in rule(row)]
    verdict = max((verdict for verdict, _ in findings), key=VERDICTS.index, default="pass")
    return verdict, [reason for own, reason in findings if own == verdict]


def tolerance(rung: str, row: Row) -> Tolerance:
    """Return the tolerance of a rung of the row's ladder against the rung before."""
    if rung in ("pytorch", "server"):
        return QUANTISED if rung == "pytorch" else SERVED
    if row.precision not in EIGHT_BIT:
        return ARITHMETIC["f32" if rung == "graph" else _FLOAT.get(row.precision, "bf16")]
    room = _of_int8(row, "f32" if rung == "graph" else row.evidence.get("variant", "f32"))
    drawn = row.ladder.get("pytorch", {})
    mean, largest = (REDRAWN * drawn.get(f"redrawn_{name}", 0.0) for name in ("mean", "largest"))
    return Tolerance(max(room.mean, mean), max(room.largest, largest))


def invariance_tolerance(row: Row) -> Tolerance:
    """How far two served answers to the same example may be apart: other batches are other orders of the same sums."""
    if row.precision not in EIGHT_BIT:
        return ARITHMETIC[_FLOAT.get(row.precision, "bf16")]
    drawn, most = _of_int8(row, "f32"), ARITHMETIC["int8"]
    return Tolerance(min(drawn.mean, most.mean), min(drawn.largest, most.largest))


def _of_int8(row: Row, rest: str) -> Tolerance:
    """Return the tolerance of INT8 with float parts of type `rest`, never below that of this type alone. FP8, which takes
    the graph's ranges and not its rounding, draws about the same noise anew."""
    kind = "int8" if rest == "f32" else "int8, bf16"
    least, times = ARITHMETIC["f32" if rest == "f32" else "bf16"], NOISE[kind]
    noise = row.ladder.get("pytorch", {})
    if "relative_mean" not in noise:
        return ARITHMETIC[kind]
    return Tolerance(
        max(least.mean, times.mean * noise["relative_mean"]), max(least.largest, times.largest * noise["relative_largest"])
    )


_FLOAT = {"fp32": "f32"}


def _degenerate(row: Row) -> Iterator[Finding]:
    names = {doubts.MODEL: "the model {}", doubts.BASELINE: "the FP32 baseline {}. The delta to it says nothing"}
    for who, found in row.degenerate.items():
        yield found["verdict"], names[who].format(found["reason"])


def _promises(row: Row) -> Iterator[Finding]:
    share = row.evidence.get(f"{row.precision}_gemm_share")
    least = LEAST_SHARE * (row.evidence.get("covered_share") or 1.0)
    if row.precision in EIGHT_BIT and share is not None and share < least:
        yield "fail", f"only {share:.0%} of the matrix products run in {row.precision.upper()}"
    try:
        runtime = engines.runtime(row.engine)
    except OptkitError as error:
        yield "undecided", f"what engines of the kind {row.engine!r} promise is not known without their package: {error}"
    else:
        yield from runtime.promises(row)


def _sixteen_bit(row: Row) -> Iterator[Finding]:
    """Eight bits are there to be faster than 16, which cost less accuracy: at the batch sizes of the workload that are
    measured, or at all of them; each counts the same."""
    measured, asked = row.speedup_vs_16bit or {}, {str(rows) for rows, _ in row.workload}
    ratios = {size: ratio for size, ratio in measured.items() if size in asked} or measured
    if row.precision in EIGHT_BIT and math.prod(ratios.values()) < 1:  # a product below 1 is a geometric mean below 1
        said = ", ".join(f"{ratio:.2f}x at batch {size}" for size, ratio in ratios.items())
        yield "fail", f"the {row.precision.upper()} engine is slower than the 16-bit one ({said})"


def _ladder(row: Row) -> Iterator[Finding]:
    before = ""
    for rung, values in row.ladder.items():
        if before and exceeds(values, allowed := tolerance(rung, row)):
            yield (
                "fail",
                f"the rung {rung!r} moves the logits by {_moved(values)} of their spread from the rung {before!r}, where "
                f"{_allowed(allowed)} is expected; {values['flips']:g} predictions flip. See them: optkit explain "
                f"{row.recipe} {row.options}",
            )
        before = rung


def _invariance(row: Row) -> Iterator[Finding]:
    for way, values in row.invariance.items():
        if exceeds(values, allowed := invariance_tolerance(row)):
            yield (
                "fail",
                f"the served answer depends on {_WAYS.get(way, way)}: it moves by {_moved(values)} of the logits' spread, "
                f"where {_allowed(allowed)} is expected",
            )


_WAYS = {
    "padding": "padding",
    "position": "the position in the batch",
    "neighbours": "the examples beside it",
    "together": "which requests the server puts into its batch",
}


def _moved(values: Mapping[str, float]) -> str:
    return f"{values['relative_mean']:.2g} in the mean and {values['relative_largest']:.2g} at most"


def _allowed(allowed: Tolerance) -> str:
    largest = "" if math.isinf(allowed.largest) else f" and {allowed.largest:.2g}"
    return f"no more than {allowed.mean:.2g}{largest}"


def _drop(row: Row) -> Iterator[Finding]:
    low, high = row.delta_ci95
    said = f"delta {row.delta:+.2f} [{low:+.2f}, {high:+.2f}]"
    if high < -row.max_drop:
        yield "fail", f"{said} is below -{row.max_drop:g} points"
    elif low < -row.max_drop:
        margin = row.delta + row.max_drop
        reach = row.delta - low if margin > 0 else high - row.delta
        yield "undecided", f"{said} reaches below -{row.max_drop:g} points: {_more(row, reach, abs(margin))}"


def _changes(row: Row) -> Iterator[Finding]:
    for name, most, words, unit in (("kl", row.max_kl, "KL", " nats"), ("flips", row.max_flips, "flips", " %")):
        value, interval = getattr(row, name), getattr(row, f"{name}_ci95")
        if most is None:
            continue
        if value is None:
            yield "undecided", f"max_{name} is set and was not measured: the task is of values, or an older optkit scored it"
            continue
        low, high = interval
        said = f"{words} {value:.3g} [{low:.3g}, {high:.3g}]{unit}"
        if low > most:
            yield "fail", f"{said} is above {most:g}"
        elif high > most:
            reach = high - value if value < most else value - low
            yield "undecided", f"{said} reaches above {most:g}: {_more(row, reach, abs(value - most))}"


def _more(row: Row, reach: float, margin: float) -> str:
    """How many more examples or seeds would bring the interval's end to the threshold: its width falls as 1/√n.

    Args:
        row: how many there were.
        reach: from the delta to the interval's end beyond the threshold, in points.
        margin: from the delta to the threshold.
    """
    factor = _factor(reach, margin)
    if factor is None:
        return "it stands on the threshold, so that more examples or seeds would hardly decide"
    seeds = math.ceil(max(1, len(row.seeds)) * (factor - 1))
    examples = _rounded((row.groups or row.examples) * (factor - 1))
    found = [f"{examples:,} more evaluation {'groups' if row.groups else row.units}"] if examples else []
    found.append(f"{seeds} more seed{'s' * (seeds > 1)}")
    return f"about {' or '.join(found)} would decide, if it stays"


def _speed(row: Row) -> Iterator[Finding]:
    for size, least in _per_size(row.min_speedup, row.speedup):
        if size not in row.speedup_ci95:
            yield "undecided", _unmeasured("min_speedup", size, row.speedup)
            continue
        (low, high), value = row.speedup_ci95[size], row.speedup[size]
        said = f"speed-up {value:.2f} [{low:.2f}, {high:.2f}] at batch {size}"
        if high < least:
            yield "fail", f"{said} is below {least:g}"
        elif low < least:
            reach = value - low if value > least else high - value
            yield "undecided", f"{said} reaches below {least:g}: {_longer(reach, abs(value - least))}"


def _p99(row: Row) -> Iterator[Finding]:
    for size, most in _per_size(row.max_p99_ms, row.latency_ms):
        if size not in row.p99_ms_ci95:
            yield "undecided", _unmeasured("max_p99_ms", size, row.latency_ms)
            continue
        (low, high), value = row.p99_ms_ci95[size], row.latency_ms[size]["p99"]
        said = f"p99 {value:.1f} ms [{low:.1f}, {high:.1f}] at batch {size}"
        if low > most:
            yield "fail", f"{said} is above {most:g} ms"
        elif high > most:
            reach = high - value if value < most else value - low
            yield "undecided", f"{said} reaches above {most:g} ms: {_longer(reach, abs(value - most))}"


def _per_size(threshold: float | Mapping[str, float] | None, measured: Mapping[str, object]) -> list[tuple[str, float]]:
    """(batch size, threshold): a number holds for every batch size."""
    if isinstance(threshold, Mapping):
        return [(str(size), value) for size, value in threshold.items()]
    return [] if threshold is None else [(size, threshold) for size in measured]


def _unmeasured(name: str, size: str, measured: Mapping[str, object]) -> str:
    return f"{name} names batch {size}, of which there is no measurement; measured: {', '.join(measured) or 'none'}"


def _longer(reach: float, margin: float) -> str:
    factor = _factor(reach, margin)
    if factor is None:
        return "it stands on the threshold, so that measuring longer would hardly decide"
    return f"measuring about {max(2, math.ceil(factor))} times as long (--seconds) would decide, if it stays"


def _factor(reach: float, margin: float) -> float | None:
    """How many times the measurements would do; None beyond a thousand."""
    return (reach / margin) ** 2 if margin * 31.6 > reach else None


def _rounded(count: float) -> int:
    """Round up to two significant digits: an estimate has no more."""
    if count <= 0:
        return 0
    unit = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return math.ceil(count / unit) * unit
