"""What a search looks for: the goal, the budget, and what both are measured by."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optkit.core.errors import InputError
from optkit.engines.select import SHAPES
from optkit.evaluation.latency import BATCH_SIZES
from optkit.evaluation.results import Row

THROUGHPUT, SIZE, LATENCY = "throughput", "size", "latency"
GOALS = (*(f"{LATENCY}@{size}" for size in BATCH_SIZES), THROUGHPUT, SIZE)


@dataclass(frozen=True)
class Goal:
    """A goal within a budget."""

    kind: str
    """One of `GOALS`: the median latency at a batch size, inferences per second at the best one, or the engine's bytes."""
    max_drop: float
    """Budget: largest loss of the headline metric, in points, from the FP32 baseline of the first model."""
    p99_ms: float | None = None
    """Budget: largest 99th percentile of the served latency in ms at `batch_size`; None without."""

    @classmethod
    def of(cls, kind: str, max_drop: float, p99_ms: float | None) -> "Goal":
        """Check what was asked for.

        Raises:
            InputError: there is no such goal.
        """
        if kind not in GOALS:
            raise InputError(f"--goal {kind}: expected one of {', '.join(GOALS)}")
        return cls(kind, max_drop, p99_ms)

    @property
    def batch_size(self) -> int:
        """Batch size at which the latency counts: the goal's own, or 1."""
        found = re.fullmatch(rf"{LATENCY}@(\d+)", self.kind)
        return int(found[1]) if found else 1

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Batch sizes to time engines at; none where speed does not count."""
        return () if self.kind == SIZE else BATCH_SIZES if self.kind == THROUGHPUT else (self.batch_size,)

    @property
    def workload(self) -> tuple[tuple[int, int], ...]:
        """Shapes that engines are chosen by, see `Recipe.workload`: those of the batch size that counts; empty for all."""
        return tuple(shape for shape in SHAPES if self.kind.startswith(LATENCY) and shape[0] == self.batch_size)

    @property
    def unit(self) -> str:
        """What `cost` is in, for people."""
        return "MB" if self.kind == SIZE else f"{self.kind}, time against the FP32 baseline's"

    def cost(self, ratios: Mapping[int, float], size_bytes: int) -> float:
        """Return what is to be least.

        Args:
            ratios: time over that of the reference, the FP32 baseline of the first model, by batch size.
            size_bytes: of the engine.
        """
        if self.kind == SIZE:
            return size_bytes / 1e6
        return min(ratios[size] for size in self.batch_sizes)

    def cost_of(self, row: Row, baseline: Mapping[int, float]) -> float:
        """Return what is to be least of a served row.

        Args:
            row: of the final run.
            baseline: time of its own FP32 baseline over that of the reference, by batch size.
        """
        return self.cost({size: ratio / row.speedup[str(size)] for size, ratio in baseline.items()}, row.size_bytes)

    def p99_verdict(self, row: Row) -> str:
        """Return whether a served row holds the bound of the 99th percentile: by its whole interval, or undecided."""
        if self.p99_ms is None:
            return "pass"
        low, high = row.p99_ms_ci95[str(self.batch_size)]
        return "pass" if high <= self.p99_ms else "fail" if low > self.p99_ms else "undecided"

    def of_recipe(self) -> dict[str, Any]:
        """Return the settings of a recipe that say the same: its gate, against its own baseline, and its workload."""
        bound = {} if self.p99_ms is None else {"max_p99_ms": {str(self.batch_size): self.p99_ms}}
        return {"max_drop": self.max_drop, **bound, "workload": self.workload}
