"""The version of the code that computed something: a digest of a module and of what it imports of its package and of optkit.

A step's key holds it, so that a change of code makes anew what that code computed, and nothing else. Comments, docstrings
and layout do not count. Imports are read from the source, those within functions too; those for the type checker alone are
left out, since they do nothing.
"""

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

_PLAIN = (str, bytes, int, float, tuple, frozenset, type(None))


def code_version(*modules: str) -> str:
    """SHA-256 over modules and their import closure (see `closure`)."""
    digest = hashlib.sha256()
    for name in sorted(set().union(*(closure(module) for module in modules))):
        behaviour = _behaviour(name) if name != "__main__" or _path(name) else _defined_in_notebook()
        digest.update(f"{name}\n{behaviour}\n".encode())
    return digest.hexdigest()


@cache
def closure(module: str) -> frozenset[str]:
    """The module and all that it imports from its own top-level package or from optkit, directly or not.

    Args:
        module: full name, such as `optkit.graph.export`.
    """
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += imported(name)
    return frozenset(found)


@cache
def imported(module: str) -> tuple[str, ...]:
    """What a module imports from its own top-level package or from optkit, by full names, wherever the statement stands.

    The packages that a module lies in are imported with it; the top-level one only hands out the others' names.
    """
    packages = tuple(f"{name.partition('.')[0]}." for name in (module, __name__))
    named = {name for name in _targets(_tree(module), module) if name.startswith(packages)}
    return tuple(sorted(named | {parent for name in named | {module} for parent in _packages(name)}))


def _packages(module: str) -> list[str]:
    """The packages between the top-level one and a module."""
    parts = module.split(".")
    return [".".join(parts[:number]) for number in range(2, len(parts))]


def _within(node: ast.AST) -> Iterator[ast.AST]:
    """The statements within another: imports and docstrings are statements, and most of a tree is expressions."""
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        inner = getattr(node, name, None)
        if isinstance(inner, list):  # that of a lambda is an expression
            yield from inner


def _targets(tree: ast.AST, module: str) -> Iterator[str]:
    for node in _within(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module)
            yield from (own if _path(own := f"{base}.{alias.name}") else base for alias in node.names)
        elif not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield from _targets(node, module)


def _absolute(node: ast.ImportFrom, module: str) -> str:
    """The full name that an import statement names, which may be relative."""
    if not node.level:
        return node.module or ""
    path = _path(module)
    parts = module.split(".")
    above = parts[: len(parts) - node.level + (path is not None and path.name == "__init__.py")]
    return ".".join([*above, *([node.module] if node.module else [])])


@cache
def _path(module: str) -> Path | None:
    """The module's source file, found without importing anything; None where there is no such module, or no source."""
    if module == "__main__":  # a script's; a notebook's has no file
        script = getattr(sys.modules[module], "__file__", None)
        return Path(script) if script and Path(script).is_file() else None
    top, *parts = module.split(".")
    origin = getattr(sys.modules.get(top), "__file__", None)  # a script's and a recipe's are found in no other way
    if origin is None and (spec := importlib.util.find_spec(top)):
        origin = spec.origin
    if not origin:
        return None
    place = Path(origin)
    if parts:
        place = place.parent.joinpath(*parts)
        place = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return place if place.suffix == ".py" and place.is_file() else None


@cache
def _tree(module: str) -> ast.Module:
    """The module's syntax tree without docstrings, also those of attributes."""
    path = _path(module)
    tree = ast.parse(b"" if path is None else path.read_bytes())
    _strip(tree)
    return tree


def _strip(node: Any) -> None:
    """Take texts that do nothing out of all bodies."""
    if isinstance(getattr(node, "body", None), list):
        node.body = [one for one in node.body if not _is_text(one)] or [ast.Pass()]
    for inner in _within(node):
        _strip(inner)


@cache
def _behaviour(module: str) -> str:
    return hashlib.sha256(ast.dump(_tree(module)).encode()).hexdigest()


def _is_text(statement: ast.stmt) -> bool:
    """Whether a statement is a text that does nothing."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _defined_in_notebook() -> str:
    """Digest of the functions and classes of a notebook's cells, which lie in no file, and of the plain values they use."""
    names = vars(sys.modules["__main__"])
    own = {name: thing for name, thing in names.items() if getattr(thing, "__module__", None) == "__main__"}
    parts = [part for name in sorted(own) for part in (name, *_compiled(own[name]))]
    used = sorted({word for part in parts for word in part.split() if word in names and isinstance(names[word], _PLAIN)})
    return hashlib.sha256("\n".join([*parts, *(f"{name}={names[name]!r}" for name in used)]).encode()).hexdigest()


def _compiled(thing: Any) -> Iterator[str]:
    """What a function or a class does: instructions, constants and names, whatever the line it stands in."""
    code = getattr(thing, "__code__", thing)
    if isinstance(code, CodeType):
        yield code.co_code.hex()
        yield " ".join(code.co_names)
        for constant in code.co_consts:
            yield from _compiled(constant)
    elif isinstance(thing, type):
        yield repr(getattr(thing, "model_fields", ""))
        for name, member in sorted(vars(thing).items()):
            inner = getattr(member, "__func__", getattr(member, "fget", member))
            if hasattr(inner, "__code__") or isinstance(inner, _PLAIN):
                yield name
                yield from _compiled(inner)
    else:
        yield repr(thing)
