"""What each stage of a recipe cost: FP32 → student → sparse → INT8 → served, each step with its interval."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from optkit.core.step_cache import verify
from optkit.evaluation.artifacts import SCORES, STAGE_SCORES, read_groups, read_scores
from optkit.evaluation.bootstrap import paired_bootstrap
from optkit.tasks.outcomes import value

SERVED = "engine"
"""The last step: from PyTorch to the engine's answers through the server."""


def loss_by_stage(folders: Sequence[Path], precision: str, metric: str) -> list[dict[str, Any]]:
    """Each stage's change of the metric in points against the one before it, in order.

    Args:
        folders: the recipe's folder of each seed.
        precision: whose engine stands at the end.
        metric: name of the metric.

    Returns:
        `{stage, delta, ci95: [low, high]}` per step; the interval is over examples, and over seeds where there are several.
    """
    chains = [_chain(folder, precision) for folder in folders]
    names, groups = list(chains[0]), read_groups(*(folder / "served" for folder in folders)).get("outcomes")
    steps = []
    for before, after in pairwise(names):
        old, new = (np.stack([chain[name] for chain in chains]) for name in (before, after))
        interval = [round(bound, 4) for bound in paired_bootstrap(new, old, metric, groups)]
        delta = fmean(value(one, metric) - value(other, metric) for one, other in zip(new, old, strict=True))
        steps.append({"stage": after, "delta": round(delta, 4), "ci95": interval})
    return steps


def _chain(folder: Path, precision: str) -> dict[str, np.ndarray]:
    """Outcomes after each stage, from the baseline to the server."""
    verify(folder, STAGE_SCORES)
    verify(folder / "served", SCORES)
    return read_scores(folder / STAGE_SCORES) | {SERVED: read_scores(folder / "served" / SCORES)[precision]}
