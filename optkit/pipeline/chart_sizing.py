"""What a replica of a model needs, and when another one is due: from what `optkit load` measured, else by rules of thumb.

The signal is Triton's own: the time that requests spend in the queue over the time that the engine takes for them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from optkit.core.atomic import hashes
from optkit.pipeline import load_summary
from optkit.pipeline.projects import Project
from optkit.serving.repository import ENGINE

HEADROOM = 0.8
"""Share of the highest rate held within the bound at which another replica is due, as one takes time to start."""
GUESS = 1.0
"""Signal at which another replica is due where nobody measured: requests wait as long as they are computed."""
_LEAST = 0.05
"""No signal is smaller: below it is noise."""
_SERVER_MB, _INSTANCE_MB, _KERNELS_MB = 100, 100, 600
"""Memory of a server without models, of an instance beside its engine, and of what an instance gathers in the first
thousand shapes (docs/serving.md, What a replica needs)."""
_GPU_CORES = 4
"""Cores that a replica on a GPU is given; its engine computes elsewhere."""


@dataclass(frozen=True)
class Sizing:
    """What a replica is given for one model, and when another one is due."""

    cores: int
    memory_mb: int
    """Memory that it took under load."""
    limit_mb: int
    """Memory that it may grow to."""
    signal: float
    """Time in the queue over time in the engine at which another replica is due."""
    basis: str
    """Where the figures come from, as a sentence."""


def cores(origin: Mapping[str, Any], record: Mapping[str, Any], on_gpu: bool) -> int:
    """Cores of a replica: those with which its engine was measured; few where it computes on a GPU.

    Args:
        origin: provenance of a published version.
        record: its `engine.json`.
        on_gpu: whether its engine runs on a GPU.
    """
    instances, threads = origin["config"].get("instances", 1), origin["config"].get("threads")
    found = instances * threads if threads else record["default_threads"]
    return min(found, _GPU_CORES) if on_gpu else int(found)


def of(origin: Mapping[str, Any], cores: int, batching: bool, load: Mapping[str, Any]) -> Sizing:
    """Size a replica of a published version.

    Args:
        origin: its provenance.
        cores: of a replica.
        batching: whether the server collects requests for it.
        load: summary of its load test; empty where there is none.
    """
    instances, way = origin["config"].get("instances", 1), "on" if batching else "off"
    size = origin["row"].get("evidence", {}).get("expanded_bytes") or origin["row"]["size_bytes"]
    seen = load.get("memory_mb", {}).get(way) or load.get("memory_mb", {}).get("off")
    memory_mb = seen or _SERVER_MB + instances * (_INSTANCE_MB + 2 * size / 1e6)
    signal, basis = _signal(load, way)
    return Sizing(
        cores=cores,
        memory_mb=round(memory_mb),
        limit_mb=round(1.25 * memory_mb + instances * _KERNELS_MB),
        signal=GUESS if signal is None else signal,
        basis=basis + ("; memory as measured" if seen else "; memory guessed from the engine's size"),
    )


def load_of(origin: Mapping[str, Any], checkpoints: Path) -> dict[str, Any]:
    """The summary of a version's load test: one of its engine in `checkpoints`, else what was published with it.

    Raises:
        InputError: the measurement is not as it was written.
    """
    row = origin["row"]
    if task := origin.get("task"):
        project = Project(checkpoints, task, origin.get("project") or task)
        folder = project.recipe(row["recipe"], row["seed"])
        found = {f"{ENGINE}/{name}": one for name, one in hashes(folder / "engines" / row["precision"]).items()}
        is_it = found and found == {name: one for name, one in origin["files"].items() if name.startswith(f"{ENGINE}/")}
        if is_it and (own := load_summary.read(folder, row["precision"])):
            return own
    return dict(row.get("load") or {})


def _signal(load: Mapping[str, Any], way: str) -> tuple[float | None, str]:
    """The signal at `HEADROOM` of the highest rate within the bound, and what that was; None where nothing was measured."""
    queues = load.get("queue", {})
    points = queues.get(way) or queues.get("off") or queues.get("on")
    if not load:
        return None, "guessed, as optkit load has not measured it"
    if not points:
        return None, f"guessed, as optkit load found no rate within a p99 of {load['p99_ms']:g} ms, or is an older one's"
    rates, signals = [point["rate"] for point in points], [point["per_compute"] for point in points]
    found = float(np.interp(HEADROOM * rates[-1], rates, signals))
    held = f"{rates[-1]:g}/s are held within a p99 of {load['p99_ms']:g} ms, and this is the queue at {HEADROOM:.0%} of it"
    return round(max(found, _LEAST), 3), held
