"""What `optkit load` left of an engine, as result rows carry it."""

from pathlib import Path
from typing import Any

from optkit.benchmark.measurement import Measurement, summary
from optkit.core.json_door import read_json
from optkit.core.step_cache import RECORD, key_at, read_record
from optkit.evaluation.artifacts import LOAD


def read(folder: Path, precision: str) -> dict[str, Any]:
    """The summary of an engine's measurements; empty where there are none of the engine as it is now.

    Args:
        folder: the recipe's, `checkpoints/<task>/<recipe>/seed-<n>`.
        precision: of the engine.
    """
    record = folder / LOAD / RECORD
    if not record.is_file() or read_record(folder / LOAD)["depends_on"]["engines"] != key_at(folder / "engines"):
        return {}
    content = read_json(folder / LOAD / f"{LOAD}.json")
    lines = [Measurement.of(line) for line in content["lines"]]
    own = [line for line in lines if line.precision == precision]
    return summary(own, content["p99_ms"]) if own else {}
