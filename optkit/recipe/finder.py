"""Finding recipes: by file, or by name among the modules of the folder `recipes/` here, then among those of the package."""

import difflib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from optkit.core.errors import InputError
from optkit.recipe.recipe import Recipe
from optkit.recipe.stage import BASELINE
from optkit.recipe.teacher_names import is_folder, recipe_of

FOLDER = Path("recipes")
_INSTALLED = Path(__file__).with_name("shipped")
SHIPPED = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "recipes"
"""Folder of the package's own recipes; in a working tree they lie beside the package (see `setup.py`)."""


def find(names: Sequence[str]) -> tuple[list[Recipe], dict[str, Recipe]]:
    """Find recipes, and every recipe in the same folders, which may be their teachers or share a prefix with them.

    Args:
        names: paths of recipe modules, or names of modules in `recipes/` or in the package.

    Returns:
        The recipes asked for, in their order and each once; and all recipes by name.

    Raises:
        InputError: an unknown name, a module that cannot be imported, or mistakes in recipes, all reported together.
    """
    mistakes: list[str] = []
    paths = [path for name in dict.fromkeys(names) if (path := _path(name, mistakes)).is_file()]
    asked = _load({path.resolve(): path for path in paths}.values(), mistakes)
    mistakes += _of_one_name(asked)
    known, broken = _known(asked)
    for recipe in asked.values():
        mistakes += mistakes_of_teachers(recipe, known, broken)
    if mistakes:
        raise InputError("\n".join(dict.fromkeys(mistakes)))
    return list(asked.values()), known


def find_recipe(name: str) -> Recipe:
    """Return one recipe: `optkit.find_recipe("ptq_int8")`.

    Args:
        name: path of a recipe module, or name of a module in `recipes/` or in the package.

    Raises:
        InputError: an unknown name, or a mistake in the recipe or in its teachers.
    """
    (recipe,), _ = find([name])
    return recipe


def modules(folder: Path) -> dict[str, Path]:
    """Return the recipe modules of a folder by their names, sorted."""
    return {path.stem: path for path in sorted(folder.glob("[!_]*.py"))}


def _known(asked: Mapping[Path, Recipe]) -> tuple[dict[str, Recipe], dict[str, str]]:
    """Return every recipe in the folders of those asked for, in `recipes/` and in the package, in this precedence, and the
    errors of modules that cannot be imported, by name."""
    own = {recipe.name: recipe for recipe in asked.values()}
    known, broken = {BASELINE: Recipe(name=BASELINE)}, {}
    folders = {folder.resolve(): folder for folder in (SHIPPED, FOLDER, *(path.parent for path in asked))}
    for folder in folders.values():
        for path in modules(folder).values():
            mistakes: list[str] = []
            known |= {recipe.name: recipe for recipe in _load([path], mistakes).values()}
            if mistakes and path.stem not in own:
                broken[path.stem] = mistakes[0]
    return known | own, broken


def _path(name: str, mistakes: list[str]) -> Path:
    places = [Path(name)] if name.endswith(".py") else [folder / f"{name}.py" for folder in (FOLDER, SHIPPED)]
    path = next((place for place in places if place.is_file()), places[0])
    if not path.is_file():
        mistakes.append(f"recipe {name!r}: no file {path}; {hint(path.stem)}")
    return path


def hint(name: str) -> str:
    """Say which recipe an unknown name may stand for, or else which there are, here and in the package."""
    here, shipped = modules(FOLDER), modules(SHIPPED)
    if close := difflib.get_close_matches(Path(name).stem, {**here, **shipped}, n=1):
        return f"did you mean {close[0]}?"
    return f"known here: {', '.join(here) or f'none ({FOLDER}/ is empty)'}; in the package: {', '.join(shipped)}"


def _load(paths: Iterable[Path], mistakes: list[str]) -> dict[Path, Recipe]:
    found = {}
    for path in paths:
        try:
            found[path] = _import(path)
        except InputError as error:
            mistakes.append(str(error))
    return found


def load_module(path: Path) -> ModuleType:
    """Run a recipe's module, which is the user's own code.

    Raises:
        InputError: naming the line where it fails.
    """
    spec = importlib.util.spec_from_file_location(f"optkit_recipe_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"{path}: not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where the source of a technique that it defines is looked up
    try:
        spec.loader.exec_module(module)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:
        raise InputError(f"{path}, line {_line(error, spec.origin)}: {type(error).__name__}: {error}") from error
    return module


def _import(path: Path) -> Recipe:
    """Run a recipe's module and take its `recipe`."""
    module = load_module(path)
    recipe = getattr(module, "recipe", None)
    if not isinstance(recipe, Recipe):
        raise InputError(f"{path}: has no `recipe = Recipe(…)`; found {type(recipe).__name__}")
    return recipe


def _line(error: Exception, file: str | None) -> int | str:
    """Return the last line of a module in an error's traceback."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno or "?"
    frames = reversed(traceback.extract_tb(error.__traceback__))
    return next((frame.lineno or "?" for frame in frames if frame.filename == file), "?")


def _of_one_name(asked: Mapping[Path, Recipe]) -> Iterator[str]:
    """Yield a message for each name that several recipes share: their results would lie in one folder."""
    files: dict[str, list[str]] = {}
    for path, recipe in asked.items():
        files.setdefault(recipe.name, []).append(str(path))
    for name, paths in files.items():
        if len(paths) > 1:
            yield f"recipe {name!r} stands in {' and in '.join(paths)}; expected each name once, rename the others"


def mistakes_of_teachers(
    recipe: Recipe, known: Mapping[str, Recipe], broken: Mapping[str, str], students: tuple[str, ...] = ()
) -> Iterator[str]:
    """Yield what is wrong with a recipe's teachers, and with the baseline that every recipe is compared with.

    Args:
        recipe: recipe to check.
        known: all recipes by name.
        broken: errors of modules that cannot be imported, by name.
        students: names of the recipes that this one teaches, to find circles.
    """
    teachers = [recipe_of(name) for name in recipe.teachers if not is_folder(name)]
    for name in dict.fromkeys((*teachers, BASELINE)):
        if name in broken:
            yield broken[name]
        elif name == recipe.name and name in teachers:
            yield f"recipe {name!r}: it is its own teacher; expected another recipe, as {BASELINE}"
        elif name in students:
            circle = sorted({*students[students.index(name) :], recipe.name})
            yield f"recipes {', '.join(circle)} teach each other; expected one of them to learn from another recipe"
        elif name not in known:
            yield (
                f"recipe {recipe.name!r}: teacher {name!r} is not a recipe; known: {', '.join(sorted(known))}. A folder is "
                f"written with a slash, as ./{name}"
            )
        elif name != BASELINE:
            yield from mistakes_of_teachers(known[name], known, broken, (*students, recipe.name))
