"""Result of `optkit tune` for an engine, as publishing uses it."""

import logging
from pathlib import Path
from typing import Any, TypedDict

from optkit.benchmark.serving_settings import Settings, Stored
from optkit.core.json_door import read_json
from optkit.core.step_cache import RECORD, OfEngines, key_at, made_of, verify
from optkit.evaluation.artifacts import TUNING

log = logging.getLogger(__name__)


class _Chosen(TypedDict):
    settings: Stored


class _Trial(_Chosen):
    rate: float
    p50_ms: float
    p99_ms: float
    mean_batch: float
    memory_mb: float
    others: str


class _Goal(TypedDict):
    kind: str


class _Choice(TypedDict):
    choice: _Chosen


class Kept(_Choice):
    """What a search for a configuration leaves."""

    goal: _Goal
    trials: list[_Trial]
    not_tried: list[Stored]


def read(folder: Path, precision: str) -> dict[str, Any] | None:
    """Goal, choice and all trials; None where the engine as it is now has not been tuned.

    Args:
        folder: the recipe's, `checkpoints/<task>/<recipe>/seed-<n>`.
        precision: of the engine.

    Raises:
        InputError: the file is not as it was written.
    """
    place = folder / TUNING / precision
    if not (place / RECORD).is_file():
        return None
    if made_of(place, OfEngines)["engines"] != key_at(folder / "engines"):
        log.warning("%s: left out, the engine has changed since; tune it again: optkit tune", place)
        return None
    verify(place)
    return read_json(place / f"{TUNING}.json", _Choice)


def settings(found: dict[str, Any] | None) -> dict[str, Any]:
    """The fields of `ModelConfig` that were chosen; none where nothing was tuned."""
    return {} if found is None else vars(Settings.of(found["choice"]["settings"]))
