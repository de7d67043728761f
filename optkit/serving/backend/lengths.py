"""Which requests of different lengths share a run of the engine: padding costs tokens, and each run a call."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence

SHORT, LONG = 8, 64
"""Tokens of the two requests by which an engine is measured."""
_TIMES = 3

Shape = tuple[int, int]
"""Rows and tokens of a request."""


def runs(shapes: Sequence[Shape], call: float) -> list[list[int]]:
    """Return the parts of a batch that cost the engine least, each padded to its longest request.

    A run costs `call` and the tokens that it computes. In the order of their lengths the requests of a run stand together,
    so that each possible first one of the last run is tried, with the best runs of those before it.

    Args:
        shapes: of the requests.
        call: what a run costs by itself, in tokens; infinite where all requests are to share one.

    Returns:
        Indices of the requests of each run, shorter ones first.
    """
    order = sorted(range(len(shapes)), key=lambda index: shapes[index][1])
    rows = [0, *itertools.accumulate(shapes[index][0] for index in order)]
    computed = sum(shapes[index][0] * shapes[index][1] for index in order)
    if rows[-1] * shapes[order[-1]][1] - computed <= call:
        return [order]  # a second run costs more than all that is padded
    best, first = [0.0], [0]
    for end, index in enumerate(order, 1):
        costs = [best[start] + call + shapes[index][1] * (rows[end] - rows[start]) for start in range(end)]
        best.append(min(costs))
        first.append(costs.index(best[-1]))
    return list(_cut(order, first))[::-1]


def _cut(order: list[int], first: list[int]) -> Iterator[list[int]]:
    """Yield the runs, the last one first, by where the run that ends at each place begins."""
    end = len(order)
    while end:
        yield order[first[end] : end]
        end = first[end]


def call_cost(infer: Callable[[int], object], longest: int) -> float:
    """Measure what a run of an engine costs by itself, in tokens.

    It is measured in the time of all cores, which other work on the machine hardly changes.

    Args:
        infer: runs the engine on one row of so many tokens.
        longest: tokens that it takes.

    Returns:
        At least 0; infinite where tokens cost nothing.
    """
    short, long = min(SHORT, longest), min(LONG, longest)
    quick, slow = (min(_core_seconds(infer, tokens) for _ in range(_TIMES)) for tokens in (short, long))
    if slow <= quick:
        return math.inf
    return max(0.0, quick * (long - short) / (slow - quick) - short)


def _core_seconds(infer: Callable[[int], object], tokens: int) -> float:
    started = time.process_time()
    infer(tokens)
    return time.process_time() - started
