"""Recipes that a run left out as they do not apply to the model: written beside the results, and read with them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from optkit.core.atomic import write_json
from optkit.core.errors import InputError
from optkit.core.json_door import read_json
from optkit.core.step_cache import RECORD, key_at, key_of
from optkit.evaluation.results import Refusal
from optkit.recipe.stage import BASELINE

FILE = ".refused.json"


def write(refusal: Refusal, folders: Sequence[Path]) -> None:
    """Keep a refusal in the recipe's folder, with the baselines that were run when it was left out.

    Args:
        refusal: of a recipe.
        folders: the recipe's, one per seed, such as `checkpoints/<task>/<recipe>/seed-<n>`; they need not exist.
    """
    baselines = {folder.name: key_at(_engines(folder)) for folder in folders}
    kept = folders[0].parent / FILE
    kept.parent.mkdir(parents=True, exist_ok=True)
    content = {"refusal": refusal.as_dict(), "baselines": baselines}
    write_json(kept, {**content, "sha256": key_of(content)})


class _Told(TypedDict):
    recipe: str
    task: str
    metric: str
    reasons: list[str]


class _Kept(TypedDict):
    refusal: _Told
    baselines: dict[str, str]
    sha256: NotRequired[str]


def forget(folder: Path) -> None:
    """Delete what was written of the recipe of a folder: it applies now."""
    (folder.parent / FILE).unlink(missing_ok=True)


def applies(folder: Path) -> bool:
    """Return whether the recipe of a folder is none that the current baseline's run left out."""
    kept = folder.parent / FILE
    return not (kept.is_file() and _is_current(kept))


def read(home: Path) -> list[Refusal]:
    """Return the refusals of a project that belong to the baselines as they are now.

    Args:
        home: folder of the project's recipes.

    Raises:
        InputError: one changed after it was written.
    """
    current = [_kept(path)["refusal"] for path in sorted(home.glob(f"*/{FILE}")) if _is_current(path)]
    return [Refusal(told["recipe"], told["task"], told["metric"], told["reasons"], project=home.name) for told in current]


def _kept(path: Path) -> dict[str, Any]:
    """What `write` kept; older versions without the SHA-256."""
    content: dict[str, Any] = read_json(path, _Kept)
    if content.pop("sha256", None) not in (None, key_of(content)):
        raise InputError(f"{path}: changed after it was written. Run the recipe again, which writes it anew")
    return content


def _is_current(kept: Path) -> bool:
    """Whether one of the baselines that were run beside the refusal is there still."""
    places = {_engines(kept.parent / seed): key for seed, key in _kept(kept)["baselines"].items()}
    return any((engines / RECORD).is_file() and key_at(engines) == key for engines, key in places.items())


def _engines(folder: Path) -> Path:
    """Engines of the baseline of the same seed."""
    return folder.parent.parent / BASELINE / folder.name / "engines"
