"""What `select.convert` left in `conversion.json`: which engine of each precision was kept, and where another is faster."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optkit.core.json_door import read_json

FILE = "conversion.json"
MUCH_FASTER = 1.25
"""How many times as fast another engine is at a shape where it is worth a word; a busy machine brings less."""


def kept(folder: Path, precision: str) -> dict[str, Any]:
    """Return the candidate of a precision that was kept, see `Candidate`.

    Args:
        folder: of the engines, with `conversion.json`.
        precision: such as "int8".
    """
    return _agreed(folder, precision)[0]


def faster_elsewhere(folder: Path, precision: str) -> Iterator[str]:
    """Say at which shapes an engine that was not kept was much faster than the one that was."""
    chosen, *others = _agreed(folder, precision)
    for shape, ms in chosen["ms"].items():
        best = min(others, key=lambda one: one["ms"].get(shape, math.inf), default=chosen)
        if (ratio := ms / best["ms"].get(shape, math.inf)) >= MUCH_FASTER:
            yield (
                f"at {shape} tokens {best['kind']} ({best['variant']}) was {ratio:.1f} times as fast as {chosen['kind']} "
                f"({chosen['variant']}), which is faster in the mean; workload=[({shape.replace('x', ', ')})] keeps it"
            )


def _agreed(folder: Path, precision: str) -> list[dict[str, Any]]:
    """The candidates of a precision that agreed, the one that was kept first."""
    told = read_json(folder / FILE)["candidates"]
    found = [one for one in told if one["precision"] == precision and (one["agreed"] or one["chosen"])]
    return sorted(found, key=lambda one: not one["chosen"])
