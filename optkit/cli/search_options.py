"""What the options of a search mean: what trials and finalists are run on, the command line that repeats them, pictures."""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.cli.commands import LARGEST
from optkit.cli.options import specs_of
from optkit.core.errors import InputError
from optkit.models.model_settings import ModelSettings
from optkit.tasks.data.data_settings import DataSettings

if TYPE_CHECKING:
    from optkit.pipeline.module_costs import Cost
    from optkit.pipeline.run_spec import RunSpec
    from optkit.pipeline.search_run import Found, Full
    from optkit.recipe.recipe import Recipe
    from optkit.recipe.training import Training

SEARCHES = ".search"
"""Folder in `checkpoints/` with what searches try, apart from what is run in full."""
FEWEST = 1000
"""Training rows of a trial, at least, where there are as many: on a few hundred an epoch is no training."""
_UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds_of(text: str) -> float:
    """Return the seconds of a time such as 90s, 30m or 2h.

    Raises:
        InputError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0 < seconds <= LARGEST:
        raise InputError(f"--time {text:.40}: expected a time above 0, as 90s, 30m or 2h")
    return seconds


def made_for(
    task: str,
    data: DataSettings,
    training: "Training",
    models: Sequence[str | None],
    seeds: list[int],
    engine: list[str] | None,
    checkpoints: Path,
    name: str | None,
    share: float,
) -> "tuple[Full, Path, list[RunSpec]]":
    """Return what makes the specs of finalists, the folder of the search, and the specs of trials, one for each model.

    Args:
        task, data, training, seeds, engine, checkpoints: as of `optkit run`.
        models: to start from; None for the task's own.
        name: of the project; with several models it gets their numbers.
        share: of train that trials are trained on.
    """
    from optkit.recipe import finder
    from optkit.tasks.registry import of_settings

    full = [
        specs_of(
            ["baseline_fp32"], task, data, ModelSettings(model), training, seeds, engine, checkpoints, name=own, new=True
        )[0]
        for model, own in zip(models, project_names(name, len(models)), strict=True)
    ]

    def whole(model: int, files: Sequence[str]) -> "tuple[list[RunSpec], list[Recipe]]":
        if not files:
            return full[model], []
        asked, known = finder.find(files)
        recipes = {name: recipe.trained_with(training) for name, recipe in known.items()}
        return [replace(spec, recipes=recipes) for spec in full[model]], [recipes[recipe.name] for recipe in asked]

    first = full[0][0]
    count = len(first.task.examples("train"))
    rows = max(round(share * count), min(count, FEWEST))
    part = of_settings(task, replace(data, limit_train=rows))
    place = checkpoints / SEARCHES / first.home.task / first.home.name
    trials = [
        replace(
            spec,
            task=part,
            root=place / f"{number}-{rows}",
            recipes={spec.baseline.name: spec.baseline},
            project=None,
            given=None,
        )
        for number, (spec, *_) in enumerate(full)
    ]
    return whole, place, trials


def models_of(given: Sequence[str]) -> tuple[str | None, ...]:
    """Return the models to start from, each once; None alone is the task's own."""
    return tuple(dict.fromkeys(str(Path(one)) if Path(one).is_dir() else one for one in given)) or (None,)


def project_names(name: str | None, models: int) -> list[str | None]:
    """Return the name of each model's project: with several models it has the model's number."""
    return [name if name is None or models == 1 else f"{name}-{number}" for number in range(1, models + 1)]


def options_of(
    task: str,
    data: DataSettings,
    training: "Training",
    model: str | None,
    seeds: Sequence[int],
    engine: Sequence[str] | None,
    name: str | None,
    checkpoints: Path,
) -> str:
    """Return the options of `optkit run` that say the same."""
    given: list[tuple[str, object]] = [("task", task), ("data", data.source), ("model", model), ("name", name)]
    given += [(own.name, getattr(data, own.name)) for own in fields(data) if own.name not in ("source", "options")]
    given += [("task-option", f"{key}={value}") for key, value in data.options.items()]
    given += [(key, value) for key, value in training.model_dump(exclude_unset=True).items()]
    given += [("checkpoints", None if checkpoints == Path("checkpoints") else checkpoints)]
    given += [*(("engine", kind) for kind in engine or ()), *(("seed", seed) for seed in seeds)]
    return shlex.join(
        part for key, value in given if value is not None for part in (f"--{key.replace('_', '-')}", str(value))
    )


def check_picture(path: Path | None) -> None:
    """Raise `InputError` where a file for a picture has another ending than those that can be drawn."""
    if path is not None and path.suffix not in (".png", ".svg"):
        raise InputError(f"--plot {path}: expected a file that ends in .png or .svg")


def draw_costs(found: "Sequence[Cost]", path: Path) -> None:
    """Draw what modules cost."""
    _prepare()
    from optkit.report import search_pictures

    search_pictures.sensitivity(found, path)


def draw_front(found: "Found", path: Path) -> None:
    """Draw the front of a search."""
    _prepare()
    from optkit.report import search_pictures

    search_pictures.front(found, path)


def _prepare() -> None:
    """Give matplotlib a folder of its own before it is imported."""
    from optkit.core.telemetry import own_folder

    own_folder(os.environ, "MPLCONFIGDIR", "matplotlib")
