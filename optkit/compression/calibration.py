"""Calibrators: from the absolute values of an activation, seen batch by batch, to its amax.

The histogram has a fixed number of bins. When a value exceeds its range, the range doubles by merging neighbouring
bins, so memory stays flat in the number of batches and no value is ever dropped.
"""

import numpy as np
import torch

from optkit.compression.model_optimizer import Calibrator

METHODS = ("percentile", "mse", "entropy")
BINS = 4096
_EXACT = 2**24  # torch counts in float32, which is exact up to here
_LEVELS = 128  # non-negative values of symmetric INT8


class HistogramCalibrator(Calibrator):
    """Streaming histogram of |x| for a per-tensor quantiser.

    Args:
        method: `percentile`, `mse` or `entropy`.
        percentile: share of the values that stay in range, in percent; for `percentile`.
    """

    def __init__(self, method: str, percentile: float = 99.99) -> None:
        super().__init__(num_bits=8, axis=None, unsigned=False)
        self.method = method
        self.percentile = percentile
        self.reset()

    def reset(self) -> None:
        """Forget everything seen."""
        self.counts = np.zeros(BINS)
        self.range = 0.0

    @torch.no_grad()
    def collect(self, x: torch.Tensor) -> None:
        """Count the absolute values of a tensor of any shape."""
        magnitude = x.detach().float().abs().flatten()
        largest = float(magnitude.max())
        if not np.isfinite(largest):
            raise FloatingPointError("an activation is not finite while calibrating")
        self._cover(largest)
        if self.range:
            for part in magnitude.split(_EXACT):
                self.counts += torch.histc(part, BINS, 0, self.range).double().cpu().numpy()

    def compute_amax(self) -> torch.Tensor | None:
        """The amax by the calibrator's method, or None where nothing but zeros was seen."""
        if not self.counts.any():
            return None
        edges = np.linspace(0, self.range, BINS + 1)
        choose = {"percentile": self._percentile, "mse": _mse, "entropy": _entropy}[self.method]
        return torch.tensor(choose(self.counts, edges), dtype=torch.float32)

    def _cover(self, largest: float) -> None:
        if self.range == 0.0:
            self.range = largest
        while self.range and self.range < largest:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2)])
            self.range *= 2

    def _percentile(self, counts: np.ndarray, edges: np.ndarray) -> float:
        reached = np.searchsorted(np.cumsum(counts), counts.sum() * self.percentile / 100)
        return float(edges[min(reached + 1, BINS)])


def _candidates(counts: np.ndarray) -> np.ndarray:
    """Upper bins to try as amax, from 1/32 of the range to the last bin that holds a value."""
    last = int(np.flatnonzero(counts)[-1]) + 1
    return np.unique(np.linspace(max(BINS // 32, _LEVELS), max(last, _LEVELS), 256).astype(int))


def _mse(counts: np.ndarray, edges: np.ndarray) -> float:
    """The amax whose quantization error, summed over the histogram, is smallest."""
    centres = (edges[1:] + edges[:-1]) / 2
    best = min(_candidates(counts), key=lambda last: _squared_error(counts, centres, float(edges[last])))
    return float(edges[best])


def _squared_error(counts: np.ndarray, centres: np.ndarray, amax: float) -> float:
    scale = amax / (_LEVELS - 1)
    quantised = np.minimum(np.rint(centres / scale), _LEVELS - 1) * scale
    return float((counts * (quantised - centres) ** 2).sum())


def _entropy(counts: np.ndarray, edges: np.ndarray) -> float:
    """The amax of least KL divergence (Migacz 2017, "8-bit inference with TensorRT")."""
    counts = counts.copy()
    counts[0] = counts[1]  # zeros (padding, masked values) say nothing about the range
    best = min(_candidates(counts), key=lambda last: _divergence(counts, last))
    return float(edges[best])


def _divergence(counts: np.ndarray, last: int) -> float:
    """KL(P || Q): P clips everything beyond `last` into its last bin, Q spreads each level over its non-empty bins."""
    inside = counts[:last]
    clipped = inside.copy()
    clipped[-1] += counts[last:].sum()
    level = np.arange(last) * _LEVELS // last
    occupied = inside > 0
    mass = np.bincount(level, inside, _LEVELS)
    width = np.bincount(level, occupied, _LEVELS)
    spread = np.where(occupied, mass[level] / np.maximum(width[level], 1), 0)
    p, q = clipped / clipped.sum(), spread / max(spread.sum(), 1e-12)
    used = p > 0
    return float((p[used] * np.log(p[used] / np.maximum(q[used], 1e-12))).sum())
