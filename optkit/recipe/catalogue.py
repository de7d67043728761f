"""The recipes that can be run by name, with what they do; and copies of the package's own to change."""

import ast
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from optkit.core.atomic import disk_error
from optkit.core.errors import InputError
from optkit.core.plain_text import plain, rendered, table
from optkit.recipe.finder import FOLDER, SHIPPED, find_recipe, hint, modules

PACKAGE = "package"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One recipe that can be run by name."""

    name: str
    """Name of its module."""
    does: str
    """Its description, or the first line of its module's docstring."""
    stages: tuple[str, ...]
    """Techniques in their order; empty for the FP32 baseline."""
    source: str
    """Where it comes from: `recipes`, the folder here, or `package`."""
    path: str


def entries() -> list[Entry]:
    """Return every recipe, those of `recipes/` in place of the package's of the same names; warn of those with mistakes."""
    found = []
    own = modules(FOLDER)
    for name, path in {**modules(SHIPPED), **own}.items():
        try:
            recipe = find_recipe(str(path))
        except InputError as error:
            log.warning("left out: %s", error)
            continue
        does = recipe.description or _first_line(path)
        stages = tuple(stage.technique for stage in recipe.stages)
        found.append(Entry(name, does, stages, str(FOLDER) if name in own else PACKAGE, str(path)))
    return found


def render(found: list[Entry], form: str) -> str:
    """Render recipes as a table or as JSON.

    Raises:
        InputError: no such format.
    """
    return rendered(found, form, partial(_table, found))


def _table(found: list[Entry]) -> str:
    columns = ("recipe", "what it does", "stages", "from")
    made = table(columns, left=columns)
    for entry in found:
        made.add_row(entry.name, entry.does, " → ".join(entry.stages), entry.source)
    return plain(made)


def copy(name: str) -> Path:
    """Copy a recipe of the package into `recipes/`, where it goes before the package's; returns the new file.

    Raises:
        InputError: no such recipe, or there is a file of this name already.
        MachineError: the file cannot be written.
    """
    if name not in modules(SHIPPED):
        raise InputError(f"recipe {name!r}: not in the package; {hint(name)}")
    place = FOLDER / f"{name}.py"
    try:
        FOLDER.mkdir(exist_ok=True)
        with place.open("x", encoding="utf-8") as file:
            file.write(modules(SHIPPED)[name].read_text(encoding="utf-8"))
    except FileExistsError as error:
        raise InputError(
            f"{error.filename}: exists already and is not overwritten. Rename it, or change it as it is"
        ) from error
    except OSError as error:
        raise disk_error(place, error) from error
    return place


def _first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
