"""One way to build a precision, and how it is judged against the graph run as it is written."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optkit.tasks.deciding import Decisions

Feed = Mapping[str, NDArray[Any]]

EIGHT_BIT = ("int8", "fp8")
"""Precisions of a quantised graph."""
LEAST_SHARE = 0.9
"""The least share of the stored weights' multiply-adds that an engine sold as INT8 or FP8 must really do in it, of those
that its graph quantises."""


@dataclasses.dataclass
class Candidate:
    """One way to build one precision, and what came of it."""

    kind: str
    precision: str
    variant: str
    """Type of what stays float: "f32" or "bf16"."""
    ms: dict[str, float] = dataclasses.field(default_factory=dict)
    """Median latency by shape, such as {"8x128": 12.3}."""
    largest_difference: float | None = None
    mean_difference: float | None = None
    relative_difference: float | None = None
    """Mean difference over the mean absolute deviation of the reference's logits: noise over signal."""
    prediction_flips: int | None = None
    """Decisions of the task that are others than the reference's; None where the task was not asked."""
    predictions: int | None = None
    evidence: dict[str, Any] = dataclasses.field(default_factory=dict)
    covered_share: float = 1.0
    """Share of the encoder's multiply-adds that the graph quantises; the rest stays float on purpose."""
    agreed: bool = False
    refusal: str | None = None
    """Full reason why the candidate is refused."""
    chosen: bool = False

    @property
    def name(self) -> str:
        """Name of the candidate, and of its folder while candidates are compared."""
        return f"{self.precision}-{self.kind}-{self.variant}"

    def speed_ms(self) -> float:
        """Geometric mean of the latencies: every shape counts the same."""
        return statistics.geometric_mean(self.ms.values())


def judge(
    candidate: Candidate,
    found: Sequence[NDArray[Any]],
    expected: Sequence[NDArray[Any]],
    masks: Sequence[NDArray[Any]],
    tolerance: float,
    per_token: bool,
    decisions: Decisions | None = None,
) -> None:
    """Write down how far a candidate is from the reference, and refuse it where that is too far.

    Args:
        candidate: gets the differences, and `agreed` or `refusal`.
        found: its logits, [batch, …], one array per feed.
        expected: the reference's.
        masks: `attention_mask` [batch, sequence] of each feed.
        tolerance: largest allowed `relative_difference`.
        per_token: whether the logits have an entry for each token; those of padding decide nothing and may be anything.
        decisions: of the task, to count those that flip; see `Task.decisions`.
    """
    if [array.shape for array in found] != [array.shape for array in expected]:
        candidate.refusal = f"logits {[a.shape for a in found]} where the reference has {[a.shape for a in expected]}"
        return
    ours, theirs = (_flat(arrays, masks if per_token else None) for arrays in (found, expected))
    difference = np.abs(ours - theirs)
    signal = float(np.abs(theirs - (theirs.mean() if theirs.size > 1 else 0)).mean())
    candidate.largest_difference = float(difference.max())
    candidate.mean_difference = float(difference.mean())
    candidate.relative_difference = candidate.mean_difference / max(signal, 1e-12)
    if decisions:
        pairs = zip(found, expected, masks, strict=True)
        changed = np.concatenate([decisions(one, mask) != decisions(other, mask) for one, other, mask in pairs])
        candidate.prediction_flips, candidate.predictions = int(changed.sum()), changed.size
    candidate.refusal = _refusal(candidate, tolerance)
    candidate.agreed = candidate.refusal is None


def _refusal(candidate: Candidate, tolerance: float) -> str | None:
    share = candidate.evidence.get(f"{candidate.precision}_gemm_share")
    # a NaN is not at most anything
    if not candidate.relative_difference <= tolerance:  # type: ignore[operator]
        counted = f"; {candidate.prediction_flips} of {candidate.predictions} predictions flip"
        return (
            f"logits differ from the reference by {candidate.mean_difference:.4g} in the mean (largest "
            f"{candidate.largest_difference:.4g}), which is {candidate.relative_difference:.3g} of their mean absolute "
            f"deviation, where at most {tolerance:.3g} was expected" + (counted if candidate.predictions else "")
        )
    least = LEAST_SHARE * candidate.covered_share
    if candidate.precision in EIGHT_BIT and share is not None and share < least:
        sold = candidate.precision.upper()
        return f"only {share:.0%} of the weights' multiply-adds run in {sold}, expected at least {least:.0%}"
    return None


def _flat(logits: Sequence[NDArray[Any]], masks: Sequence[NDArray[Any]] | None) -> NDArray[Any]:
    """All logits, float64; with masks those of tokens that are not padding."""
    kept = logits if masks is None else [array[mask > 0] for array, mask in zip(logits, masks, strict=True)]
    flat: NDArray[np.float64] = np.concatenate([array.ravel() for array in kept]).astype(np.float64)
    return flat
