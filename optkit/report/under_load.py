"""What `optkit load` left of an engine, as result rows carry it."""

from pathlib import Path
from typing import Any

from optkit.store import RECORD, key_at, read_json, read_record
from optkit.validation.evidence import LOAD
from optkit.validation.lines import Line, summary


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
    lines = [Line.of(line) for line in content["lines"]]
    own = [line for line in lines if line.precision == precision]
    return summary(own, content["p99_ms"]) if own else {}
