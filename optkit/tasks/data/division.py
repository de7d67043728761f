"""Rows divided in two, such that what belongs together stays on one side."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Division(NamedTuple):
    """Rows of both sides, in their order."""

    rest: list[int]
    part: list[int]
    left_out: list[int]
    """Rows that belong to groups of both sides, and would give the one away to the other."""


def divide(groups: Sequence[Sequence[int]], most: float, seed: int = 0) -> Division:
    """Take whole groups out of rows, drawn by a seed, until no other would fit.

    Args:
        groups: numbers of the groups that each row belongs to, one or more.
        most: number of rows that may be taken out.
        seed: of the draw.
    """
    count = 1 + max((max(own) for own in groups), default=0)
    sizes, taken, room = np.bincount([own[0] for own in groups], minlength=count), np.zeros(count, dtype=bool), most
    for group in np.random.default_rng(seed).permutation(count):
        if sizes[group] <= room:
            taken[group], room = True, room - sizes[group]
    sides = [{bool(taken[group]) for group in own} for own in groups]
    wanted = {False}, {True}, {False, True}
    return Division(*([row for row, side in enumerate(sides) if side == one] for one in wanted))
