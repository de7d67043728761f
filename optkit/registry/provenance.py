"""Provenance of a published version, as one JSON document that lies beside it."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from optkit.core import step_cache
from optkit.core.atomic import file_hash, hashes
from optkit.core.hardware import processor
from optkit.core.json_door import read_json
from optkit.core.step_cache import RECORD, read_record
from optkit.engines import registry as engines
from optkit.engines.record import read_record as read_engine
from optkit.evaluation.results import Row

_PACKAGES = (
    "optkit",
    "torch",
    "transformers",
    "nvidia-modelopt",
    "onnx",
    "numpy",
    "tritonclient",
)


_Trained = TypedDict(
    "_Trained", {"recipe": dict[str, Any], "training": Any, "data": Any, "model": Any, "from": Any, "code": Any}
)
"""What a checkpoint depends on."""


def collect(folder: Path, row: Row, rows: Sequence[Row]) -> dict[str, Any]:
    """Everything that is known of an engine before it is placed.

    Args:
        folder: the recipe's, `checkpoints/<task>/<recipe>/seed-<n>`.
        row: of the engine.
        rows: all rows of the task, baseline's and other recipes' included.
    """
    made_of = step_cache.made_of(folder, _Trained)
    engine = folder / "engines" / row.precision
    return {
        "task": row.task,
        "project": row.project,
        "recipe": {"name": row.recipe, "max_drop": row.max_drop, **made_of["recipe"]},
        "training": made_of["training"],
        "seed": row.seed,
        "seeds": sorted({other.seed for other in rows if other.recipe == row.recipe and other.seed is not None}),
        "data": made_of["data"],
        "max_length": made_of.get("max_length"),  # not in checkpoints of 0.1
        "source_model": made_of["model"],
        "made_from": made_of["from"],
        "code": made_of["code"],
        "checkpoint": {"record": file_hash(folder / RECORD), "files": read_record(folder)["files"]},
        "engine": {**read_engine(engine), "files": hashes(engine)},
        "versions": {"training": read_json(folder / "versions.json", dict[str, str]), "publishing": _versions()},
        "machine": machine(),
        "git": commit(),
        "row": row.as_dict(),
        "rows": [other.as_dict() for other in rows],
        "verdict": row.verdict,
        "reasons": row.reasons,
    }


def machine() -> dict[str, Any]:
    """What this machine is, as far as engines and speed depend on it."""
    return {"name": platform.node(), "system": platform.platform(), "processor": processor(), **engines.machine()}


def commit(folder: Path | None = None) -> dict[str, Any] | None:
    """The git commit that is checked out in a folder (by default here), and whether files differ from it; None without.

    Args:
        folder: inside a working tree.
    """
    found = _git("rev-parse", "HEAD", folder=folder)
    if found is None:
        return None
    return {"commit": found, "changed": bool(_git("status", "--porcelain", "--untracked-files=no", folder=folder))}


def _git(*arguments: str, folder: Path | None) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # git is not installed
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | engines.machine()["runtimes"]
