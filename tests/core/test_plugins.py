"""Things are found by name: optkit's own, those of other packages, and those of a script."""

import sys
from pathlib import Path
from typing import Any

import pytest

from optkit.core.errors import InputError, MachineError
from optkit.core.plugins import Registry, import_folders


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
    monkeypatch.delitem(sys.modules, "shapes_of_theirs", raising=False)  # an earlier test's lies elsewhere


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


@pytest.mark.parametrize("name", [None, 3])
def test_what_is_no_name_is_refused_as_one_that_there_is_not(name: Any, registry: Registry[type]) -> None:
    with pytest.raises(InputError, match=rf"shape {name}: there is none of that name; expected one of path, text"):
        registry.get(name)


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


@pytest.mark.usefixtures("package")
def test_what_cannot_be_imported_is_said_and_stops_nothing_else(
    registry: Registry[type], caplog: pytest.LogCaptureFixture
) -> None:
    assert [name for name, _ in registry.working()] == ["path", "text", "round"]
    assert "shape 'broken' of the package shapes: shapes_of_nobody:Broken cannot be imported" in caplog.text


@pytest.mark.usefixtures("package")
def test_a_thing_of_another_kind_is_refused() -> None:
    registry: Registry[type] = Registry("shape", "optkit.test_shapes", {}, lambda thing: issubclass(thing, Path))
    with pytest.raises(MachineError, match=r"shape 'round' of the package shapes: .*Round.* which is no shape"):
        registry.get("round")


def test_a_class_that_is_defined_again_takes_the_place_of_the_first(registry: Registry[type]) -> None:
    def cell() -> type:
        class Blob: ...

        return Blob

    registry.register("blob", cell())
    again = registry.register("blob", cell())
    assert registry.get("blob") is again


@pytest.mark.usefixtures("package")
def test_what_no_other_process_finds(registry: Registry[type]) -> None:
    registry.register("number", int)
    assert registry.only_here("number") and not registry.only_here("round") and not registry.only_here("path")


@pytest.mark.usefixtures("package")
def test_folders_that_another_process_has_to_import_from(tmp_path: Path) -> None:
    assert import_folders(["optkit.test_shapes"]) == [str(tmp_path)]
