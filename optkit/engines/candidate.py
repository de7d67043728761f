"""One way to build a precision, and how it is judged against the graph run as it is written."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Feed = Mapping[str, np.ndarray]

INT8_SHARE = 0.9
"""The least share of the stored weights' multiply-adds that an engine sold as INT8 must really do in INT8."""


@dataclasses.dataclass
class Candidate:
    """One way to build one precision, and what came of it."""

    kind: str
    precision: str
    variant: str
    """What stays float runs in this: "f32" or "bf16"."""
    ms: dict[str, float] = dataclasses.field(default_factory=dict)
    """Median latency by shape, such as {"8x128": 12.3}."""
    largest_difference: float | None = None
    mean_difference: float | None = None
    relative_difference: float | None = None
    """Mean difference over the mean absolute deviation of the reference's logits: noise over signal."""
    prediction_flips: int | None = None
    """Predictions that are others than the reference's: the class, or the likeliest start and the likeliest end."""
    predictions: int | None = None
    evidence: dict[str, Any] = dataclasses.field(default_factory=dict)
    agreed: bool = False
    refusal: str | None = None
    """Why it is out, in full."""
    chosen: bool = False

    @property
    def name(self) -> str:
        """Also that of its folder while candidates are compared."""
        return f"{self.precision}-{self.kind}-{self.variant}"

    def speed_ms(self) -> float:
        """Geometric mean of the latencies: every shape counts the same."""
        return statistics.geometric_mean(self.ms.values())


def judge(
    candidate: Candidate,
    found: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    tolerance: float,
) -> None:
    """Write down how far a candidate is from the reference, and refuse it where that is too far.

    Args:
        candidate: gets the differences, and `agreed` or `refusal`.
        found: its logits, [batch, classes] or [batch, sequence, 2], one array per feed.
        expected: the reference's.
        masks: `attention_mask` [batch, sequence] of each feed.
        tolerance: largest allowed `relative_difference`.
    """
    if [array.shape for array in found] != [array.shape for array in expected]:
        candidate.refusal = f"logits {[a.shape for a in found]} where the reference has {[a.shape for a in expected]}"
        return
    ours, theirs = _flat(found, masks), _flat(expected, masks)
    difference = np.abs(ours - theirs)
    signal = float(np.abs(theirs - theirs.mean()).mean())
    candidate.largest_difference = float(difference.max())
    candidate.mean_difference = float(difference.mean())
    candidate.relative_difference = candidate.mean_difference / max(signal, 1e-12)
    changed = _predictions(found, masks) != _predictions(expected, masks)
    candidate.prediction_flips, candidate.predictions = int(changed.sum()), changed.size
    candidate.refusal = _refusal(candidate, tolerance)
    candidate.agreed = candidate.refusal is None


def _refusal(candidate: Candidate, tolerance: float) -> str | None:
    share = candidate.evidence.get("int8_gemm_share")
    # a NaN is not at most anything
    if not candidate.relative_difference <= tolerance:  # type: ignore[operator]
        return (
            f"logits differ from the reference by {candidate.mean_difference:.4g} in the mean (largest "
            f"{candidate.largest_difference:.4g}), which is {candidate.relative_difference:.3g} of their mean absolute "
            f"deviation, where at most {tolerance:.3g} was expected; {candidate.prediction_flips} of "
            f"{candidate.predictions} predictions flip"
        )
    if candidate.precision == "int8" and share is not None and share < INT8_SHARE:
        return f"only {share:.0%} of the weights' multiply-adds run in INT8, expected at least {INT8_SHARE:.0%}"
    return None


def _flat(logits: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> np.ndarray:
    """All logits that matter, float64: those of padding decide nothing and may be anything."""
    kept = [array[mask > 0] if array.ndim == 3 else array for array, mask in zip(logits, masks, strict=True)]
    return np.concatenate([array.ravel() for array in kept]).astype(np.float64)


def _predictions(logits: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> np.ndarray:
    """The largest logit of every row, for question answering among the tokens that are not padding."""
    shown = [
        np.where(mask[..., None] > 0, array, -np.inf) if array.ndim == 3 else array
        for array, mask in zip(logits, masks, strict=True)
    ]
    return np.concatenate([array.argmax(axis=1).ravel() for array in shown])
