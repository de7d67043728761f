"""Things are found by name: optkit's own, those of other packages, and those of a script."""

import sys
from pathlib import Path

import pytest

from optkit.core.errors import InputError, MachineError
from optkit.core.plugins import Registry


@pytest.fixture
def registry() -> Registry[type]:
    return Registry("shape", "optkit.test_shapes", {"path": "pathlib:Path", "text": "builtins:str"})


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that brings a shape, one that cannot be imported, and one under a name of optkit's own."""
    info = tmp_path / "shapes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shapes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[optkit.test_shapes]\nround = shapes_of_theirs:Round\n"
        "broken = shapes_of_nobody:Broken\npath = shapes_of_theirs:Round\n"
    )
    (tmp_path / "shapes_of_theirs.py").write_text("class Round: ...\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_own_names_are_found(registry: Registry[type]) -> None:
    assert registry.get("path") is Path and registry.names() == ("path", "text")


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    assert "this" not in sys.modules
    registry: Registry[str] = Registry("poem", "optkit.test_poems", {"zen": "this:s"})
    assert registry.names() == ("zen",) and "this" not in sys.modules


def test_an_unknown_name_is_said_with_those_that_there_are(registry: Registry[type]) -> None:
    with pytest.raises(
        InputError, match=r"shape 'pth': there is none of that name; expected one of path, text\. Did you mean"
    ):
        registry.get("pth")


def test_what_is_registered_is_found_until_it_is_forgotten(registry: Registry[type]) -> None:
    assert registry.register("number", int) is int
    registry.register("number", int)
    assert registry.get("number") is int and registry.names() == ("path", "text", "number")
    registry.forget("number")
    assert registry.names() == ("path", "text")


@pytest.mark.parametrize("name", ["path", "number"])
def test_a_name_is_not_given_twice(name: str, registry: Registry[type]) -> None:
    registry.register("number", int)
    with pytest.raises(InputError, match=f"shape '{name}' is there already: expected another name than path, text, number"):
        registry.register(name, float)


def test_another_package_brings_its_own_and_takes_none_of_ours(registry: Registry[type], package: None) -> None:
    assert registry.names() == ("path", "text", "round", "broken")
    assert registry.get("round").__name__ == "Round" and registry.get("path") is Path


def test_a_package_that_cannot_be_imported_is_named(registry: Registry[type], package: None) -> None:
    with pytest.raises(
        MachineError, match=r"shape 'broken' of the package shapes: shapes_of_nobody:Broken cannot be imported"
    ):
        registry.get("broken")
