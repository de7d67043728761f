"""Finding recipes: by file, or by name among the modules of a `recipes/` folder."""

import difflib
import importlib.util
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

from optkit.errors import InputError
from optkit.recipe import BASELINE, Recipe

FOLDER = Path("recipes")


def find(names: Sequence[str]) -> tuple[list[Recipe], dict[str, Recipe]]:
    """The recipes asked for, and by name every recipe known beside them: teachers and shared prefixes.

    Args:
        names: paths of recipe modules, or names of modules in `recipes/`.

    Raises:
        InputError: an unknown name, a module that cannot be imported, or mistakes in recipes, all reported together.
    """
    mistakes: list[str] = []
    asked = _load([_path(name, mistakes) for name in dict.fromkeys(names)], mistakes)
    if mistakes:
        raise InputError("\n".join(mistakes))
    known = {BASELINE: Recipe(name=BASELINE)}
    for folder in {path.parent for path in asked} | {FOLDER}:
        beside = _load(sorted(folder.glob("[!_]*.py")), [])
        known |= {recipe.name: recipe for recipe in beside.values()}
    known |= {recipe.name: recipe for recipe in asked.values()}
    for recipe in asked.values():
        _check_teachers(recipe, known)
    return sorted(asked.values(), key=lambda recipe: not recipe.is_baseline), known


def _path(name: str, mistakes: list[str]) -> Path:
    path = Path(name) if name.endswith(".py") else FOLDER / f"{name}.py"
    if not path.is_file():
        known = sorted(module.stem for module in FOLDER.glob("[!_]*.py"))
        close = difflib.get_close_matches(path.stem, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known) or f'none ({FOLDER}/ is empty)'}"
        mistakes.append(f"recipe {name!r}: no file {path}; {hint}")
    return path


def _load(paths: Iterable[Path], mistakes: list[str]) -> dict[Path, Recipe]:
    found = {}
    for path in paths:
        try:
            found[path] = _import(path)
        except InputError as error:
            mistakes.append(str(error))
    return found


def _import(path: Path) -> Recipe:
    """Run a recipe's module, which is the user's own code, and take its `recipe`."""
    spec = importlib.util.spec_from_file_location(f"optkit_recipe_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"{path}: not a Python module")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:
        line = next((f.lineno for f in reversed(traceback.extract_tb(error.__traceback__)) if f.filename == str(path)), "?")
        raise InputError(f"{path}, line {line}: {type(error).__name__}: {error}") from error
    recipe = getattr(module, "recipe", None)
    if not isinstance(recipe, Recipe):
        raise InputError(f"{path}: has no `recipe = Recipe(…)`; found {type(recipe).__name__}")
    return recipe


def _check_teachers(recipe: Recipe, known: dict[str, Recipe]) -> None:
    for name in recipe.teachers:
        if name not in known:
            raise InputError(f"recipe {recipe.name!r}: teacher {name!r} is not a recipe; known: {', '.join(sorted(known))}")
        if name == recipe.name:
            raise InputError(f"recipe {recipe.name!r}: it is its own teacher; expected another recipe, as {BASELINE}")
