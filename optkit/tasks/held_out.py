"""A part of the training examples held out, on which settings are chosen: never on the dev split, which judges them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from optkit.core.errors import InputError
from optkit.tasks.data.division import divide

if TYPE_CHECKING:
    from datasets import Dataset

    from optkit.tasks.base import Task

log = logging.getLogger(__name__)


class HeldOut(NamedTuple):
    """Indices of training features, int64, in their order."""

    rest: NDArray[np.int64]
    """What may be learned from meanwhile."""
    held: NDArray[np.int64]
    """What settings are chosen by."""


def held_out(task: Task, features: Dataset, share: float = 0.1, most: int = 2000, seed: int = 0) -> HeldOut:
    """Hold out a part of the training examples by group, so that what is held out is new to what learns from the rest.

        rest, held = held_out(context.task, context.features)
        features.select(held)

    Groups are those of the data's column `group`, or the texts that rows are pieces of; all windows of an example stay on
    one side. Rows that belong to both sides are in neither.

    Args:
        task: with the training split.
        features: encoded training split.
        share: how much of the examples to hold out, at most.
        most: number of examples, at most.
        seed: of the draw.

    Raises:
        InputError: every group is larger than what may be held out.
    """
    groups = task.belonging("train")
    found = divide(groups, min(most, share * len(groups)), seed)
    if not found.part:
        raise InputError(
            f"task {task.name!r}: {len(groups):,} training rows have no group of {share:.0%} of them or fewer that could be "
            "held out to choose settings by; expected more rows, or smaller groups"
        )
    log.info(
        "settings are chosen on %s of %s training rows%s",
        f"{len(found.part):,}",
        f"{len(groups):,}",
        f"; {len(found.left_out):,} are pieces of both sides and in neither" if found.left_out else "",
    )
    of_feature = np.array(features["example"][:])
    rest, held = (np.flatnonzero(np.isin(of_feature, rows)) for rows in (found.rest, found.part))
    return HeldOut(rest, held)
