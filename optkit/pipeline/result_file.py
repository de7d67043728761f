"""The file with a recipe's result rows: sealed, and read only where it tells of what lies beside it now."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from optkit.core import seals
from optkit.core.step_cache import RECORD, OfEngines, key_at, made_of
from optkit.evaluation import results
from optkit.evaluation.results import Row
from optkit.recipe.stage import BASELINE

RESULT = "result.json"
log = logging.getLogger(__name__)


def write(rows: Sequence[Row], folder: Path) -> None:
    """Keep rows beside what they are about."""
    text = json.dumps([row.as_dict() for row in rows], indent=1) + "\n"
    seals.write(folder / RESULT, text, key_at(folder / "served"))


def read(folder: Path) -> list[Row]:
    """Read rows as they were written; none where they tell of other engines, scores or another baseline than those there.

    Raises:
        InputError: the file changed after it was written, or holds no such rows.
    """
    if not _is_measured_here(folder) or not _tells_of_scores(folder):
        said = "%s: left out, its baseline, its engines or its scores have changed since; run the recipe again"
        log.warning(said, folder)
        return []
    return results.read(folder / RESULT)


def baseline_of(folder: Path) -> Path:
    """Folder of the baseline of the same seed."""
    return folder.parent.parent / BASELINE / folder.name


def _is_measured_here(folder: Path) -> bool:
    """Whether the scores are of the engines, and beside the baseline, that are there now."""
    depends_on = made_of(folder / "served", OfEngines)
    places = {"engines": folder / "engines", "baseline": baseline_of(folder) / "engines"}
    return all((at / RECORD).is_file() and key_at(at) == depends_on.get(name) for name, at in places.items())


def _tells_of_scores(folder: Path) -> bool:
    """Whether the rows were made of the scores that are there now."""
    of = seals.told_of(folder / RESULT)
    if of is None:
        log.warning("%s: not sealed, an older optkit wrote it without its SHA-256; run the recipe again", folder / RESULT)
    return of in (None, key_at(folder / "served"))
