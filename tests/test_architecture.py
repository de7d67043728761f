"""The rooms of the package, and the one way in which they may import each other."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from optkit.core.code_version import imported

ROOT = Path(__file__).parents[1]
ROOMS = (
    "core",
    "recipe",
    "tasks",
    "models",
    "training",
    "compression",
    "graph",
    "engines",
    "serving",
    "evaluation",
    "benchmark",
    "registry",
    "pipeline",
    "report",
    "cli",
)
"""Rooms in the order in which a recipe goes through them: each imports from itself and from those before it."""
TOP = {"optkit", "optkit.__main__"}
"""What hands out the names of all rooms, and starts the command line."""
SHARED_NAMES = {"__init__", "base", "registry"}
"""File names that several rooms have; every other is there once."""


LOADED_BY = {"modelopt": "optkit.compression.", "datasets": "optkit.tasks.data."}
"""Packages that take seconds or are not everywhere, and the only modules that may load them when they are imported."""


def name_of(path: Path) -> str:
    """A file's module: `optkit.core.errors`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted((ROOT / "optkit").rglob("*.py"))}


def room(module: str) -> int:
    return ROOMS.index(module.split(".")[1])


def named(module: str) -> set[str]:
    """Modules that a text in the code names, such as those of a registry: they are imported when they are asked for."""
    source = MODULES[module].read_text()
    if not re.search(r"[\"']optkit\.", source):
        return set()  # nothing to be taken apart
    tree = ast.parse(source)
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = (
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
    )
    return {text.partition(":")[0] for text in texts} & MODULES.keys()


@cache
def imports(module: str) -> set[str]:
    """All that a module imports, lazily or not, without the packages that these lie in."""
    return {name for name in {*imported(module), *named(module)} if MODULES[name].name != "__init__.py"}


def arrows() -> Iterator[tuple[str, str]]:
    for module in MODULES.keys() - TOP:
        for other in imports(module):
            yield module, other


def test_every_module_lies_in_a_room() -> None:
    assert {module.split(".")[1] for module in MODULES.keys() - TOP} == set(ROOMS)


def test_no_room_imports_from_one_behind_it() -> None:
    assert sorted((module, other) for module, other in arrows() if room(other) > room(module)) == []


def test_no_room_imports_the_public_names() -> None:
    texts = {module: MODULES[module].read_text() for module in MODULES.keys() - TOP}
    found = [
        f"{module}:{node.lineno}"
        for module, text in texts.items()
        if re.search(r"import .*\boptkit\b|from optkit import", text)
        for node in ast.walk(ast.parse(text))
        if (isinstance(node, ast.Import) and any(alias.name == "optkit" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module == "optkit" and {a.name for a in node.names} - set(ROOMS))
    ]
    assert sorted(found) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    found, done = [], set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        if module in way:
            found.append(" → ".join((*way[way.index(module) :], module)))
        elif module not in done:
            for other in sorted(imports(module)):
                visit(other, (*way, module))
            done.add(module)

    for module in sorted(MODULES.keys() - TOP):
        visit(module, ())
    assert found == []


def test_packages_hold_a_docstring_and_nothing_else() -> None:
    found = {
        module: path
        for module, path in MODULES.items()
        if path.name == "__init__.py" and module != "optkit" and len(ast.parse(path.read_text()).body) != 1
    }
    assert sorted(found) == []


def test_a_file_name_stands_for_one_thing() -> None:
    places: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        places.setdefault(path.stem, []).append(module)
    assert {stem: found for stem, found in places.items() if len(found) > 1 and stem not in SHARED_NAMES} == {}


def test_tests_lie_where_what_they_test_lies() -> None:
    """A folder of tests is a folder of the package; `gpu` needs a card, whatever it tests."""
    folders = {path.parent.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    known = {path.parent.relative_to(ROOT / "optkit").as_posix() for path in MODULES.values()}
    assert folders - {".", "gpu"} <= known


@pytest.mark.parametrize("module", sorted(MODULES))
def test_what_is_imported_is_there(module: str) -> None:
    assert [other for other in imported(module) if other not in MODULES] == []


def at_once(body: list[ast.stmt]) -> Iterator[str]:
    """What is imported when a module is, as full names of modules."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from names & MODULES.keys() or {node.module}
        elif not isinstance(node, ast.FunctionDef) and not (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        ):
            yield from at_once(getattr(node, "body", []))


@pytest.mark.parametrize("package", LOADED_BY)
def test_a_heavy_package_is_loaded_by_those_alone_who_need_it(package: str) -> None:
    direct = {module: set(at_once(ast.parse(path.read_text()).body)) for module, path in MODULES.items()}
    loading = {module for module, names in direct.items() if any(name.partition(".")[0] == package for name in names)}
    assert loading, f"nothing imports {package}"
    while more := {module for module, names in direct.items() if names & loading} - loading:
        loading |= more
    assert not [module for module in loading if not module.startswith(LOADED_BY[package])]
