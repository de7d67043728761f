"""`thresholds.json`: the thresholds by which a model decides, beside its weights, its graph and its engines."""

import math
from collections.abc import Sequence
from pathlib import Path

from optkit.core.atomic import write_json
from optkit.core.errors import InputError
from optkit.core.json_door import read_json

FILE = "thresholds.json"


def write(folder: Path, thresholds: Sequence[float]) -> None:
    """Write a model's thresholds into a folder; nothing for a model without any."""
    if thresholds:
        write_json(folder / FILE, list(thresholds))


def read(folder: Path, expected: int | None = None) -> tuple[float, ...]:
    """Return the thresholds in a folder; empty where there are none.

    Args:
        folder: of a checkpoint, a graph or engines.
        expected: how many there have to be, if any.

    Raises:
        InputError: the file holds something else than finite numbers, or another number of them.
    """
    path = folder / FILE
    if not path.is_file():
        return ()
    found = read_json(path, list[float], "run the recipe again: optkit run")
    if not all(map(math.isfinite, found)) or len(found) != (expected or len(found)):
        raise InputError(
            f"{path}: found {len(found)} thresholds, expected {expected or 'only'} finite numbers; run the recipe again: "
            "optkit run"
        )
    return tuple(found)
