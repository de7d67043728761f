"""What `optkit load` left of an engine, as result rows carry it."""

from pathlib import Path
from typing import Any, TypedDict

from optkit.benchmark.measurement import Measurement, summary
from optkit.core.json_door import read_json
from optkit.core.step_cache import RECORD, OfEngines, key_at, made_of, verify
from optkit.evaluation.artifacts import LOAD


class Kept(TypedDict):
    """What a measurement leaves."""

    p99_ms: float
    lines: list[dict[str, Any]]


def read(folder: Path, precision: str) -> dict[str, Any]:
    """The summary of an engine's measurements; empty where there are none of the engine as it is now.

    Args:
        folder: the recipe's, `checkpoints/<task>/<recipe>/seed-<n>`.
        precision: of the engine.

    Raises:
        InputError: the file is not as it was written.
    """
    record = folder / LOAD / RECORD
    if not record.is_file() or made_of(folder / LOAD, OfEngines)["engines"] != key_at(folder / "engines"):
        return {}
    verify(folder / LOAD)
    path = folder / LOAD / f"{LOAD}.json"
    content = read_json(path, Kept)
    lines = [Measurement.of(line, path) for line in content["lines"]]
    own = [line for line in lines if line.precision == precision]
    return summary(own, content["p99_ms"]) if own else {}
