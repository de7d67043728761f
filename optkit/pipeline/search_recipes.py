"""What a search has found, written as ordinary recipe files."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optkit.core.atomic import write_text
from optkit.core.step_cache import key_of
from optkit.recipe.recipe import Recipe
from optkit.recipe.stage import Stage

_OWN = "optkit."
_LINE = 100


def recipe_of(stages: Sequence[Stage], settings: Mapping[str, Any], model: int = 0) -> Recipe:
    """Return the recipe of some stages for one of a search's models; the same of both have the same name, whatever the
    budget: that is judged anew without training. Engines for another workload are another recipe's."""
    content: dict[str, Any] = {"stages": [stage.model_dump(mode="json") for stage in stages]}
    others = {"model": model, "workload": settings.get("workload")}
    digest = key_of(content | {name: value for name, value in others.items() if value})
    return Recipe(name=f"found_{digest[:8]}", stages=tuple(stages), **settings)


def write(recipe: Recipe, folder: Path, does: str, options: str) -> Path:
    """Write a recipe as a module that `optkit run` takes; returns the file.

    Args:
        recipe: with settings that differ from the defaults, which are written.
        folder: existing.
        does: first line of its description.
        options: of the command line that repeats it.
    """
    own = sorted({type(stage).__name__ for stage in recipe.stages if type(stage).__module__.startswith(_OWN)})
    others = sorted(
        {(type(one).__module__, type(one).__name__) for one in recipe.stages}
        - {(type(one).__module__, name) for one in recipe.stages for name in own}
    )
    settings = "".join(f"    {name}={value!r},\n" for name, value in _settings(recipe).items())
    path = folder / f"{recipe.name}.py"
    text = (
        f"{_docstring(does)}\n\nimport optkit\nfrom optkit import {', '.join(sorted(['Recipe', *own]))}\n"
        + "".join(f"from {module} import {name}\n" for module, name in others)
        + f"\nrecipe = Recipe(\n    name={recipe.name!r},\n    stages=[\n"
        + "".join(_stage(stage) for stage in recipe.stages)
        + f"    ],\n{settings})\n\n"
        + f'if __name__ == "__main__":\n    optkit.main(recipe)  # python {shlex.quote(str(path))} {options}\n'
    )
    write_text(path, text)
    return path


def _docstring(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', "'")
    return f'"""{escaped}"""'


def _settings(recipe: Recipe) -> dict[str, Any]:
    found = {name: getattr(recipe, name) for name in ("max_drop", "max_p99_ms", "workload")}
    return {name: value for name, value in found.items() if value not in (None, ())}


def _stage(stage: Stage) -> str:
    given = {name: value for name, value in stage.model_dump(exclude_defaults=True).items() if name != "technique"}
    settings = [f"{name}={value!r}" for name, value in given.items()]
    whole = f"        {type(stage).__name__}({', '.join(settings)}),\n"
    if len(whole) <= _LINE:
        return whole
    return f"        {type(stage).__name__}(\n" + "".join(f"            {one},\n" for one in settings) + "        ),\n"
