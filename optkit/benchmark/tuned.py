"""Result of `optkit tune` for an engine, as publishing uses it."""

import logging
from pathlib import Path
from typing import Any

from optkit.benchmark.serving_settings import Settings
from optkit.core.json_door import read_json
from optkit.core.step_cache import RECORD, key_at, read_record, verify
from optkit.evaluation.artifacts import TUNING

log = logging.getLogger(__name__)


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
    if read_record(place)["depends_on"]["engines"] != key_at(folder / "engines"):
        log.warning("%s: left out, the engine has changed since; tune it again: optkit tune", place)
        return None
    verify(place)
    return read_json(place / f"{TUNING}.json")


def settings(found: dict[str, Any] | None) -> dict[str, Any]:
    """The fields of `ModelConfig` that were chosen; none where nothing was tuned."""
    return {} if found is None else vars(Settings.of(found["choice"]["settings"]))
