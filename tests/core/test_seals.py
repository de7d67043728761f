"""A file that tells of a step is read as it was written, or named; an interrupted writer leaves one that is read."""

import json
from pathlib import Path

import pytest

from optkit.core import seals, step_cache
from optkit.core.atomic import write_json, write_text
from optkit.core.errors import InputError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "step"
    step_cache.step(folder, {"a": 1}, lambda made: write_text(made / "a.txt", "a"))
    return folder / "result.json"


def test_what_was_written_is_told_of_its_step(path: Path) -> None:
    seals.write(path, "[1]", "key")
    assert seals.told_of(path) == "key" and path.read_text() == "[1]"
    seals.write(path, "[2]", "another")
    assert seals.told_of(path) == "another"
    step_cache.verify(path.parent)
    assert step_cache.is_finished(path.parent, step_cache.key_of({"a": 1}))


def test_the_same_again_writes_nothing(path: Path) -> None:
    seals.write(path, "[1]", "key")
    before = [(each, each.stat().st_ino) for each in sorted(path.parent.iterdir())]
    seals.write(path, "[1]", "key")
    assert before == [(each, each.stat().st_ino) for each in sorted(path.parent.iterdir())]


def test_a_changed_file_is_named_with_what_to_do(path: Path) -> None:
    seals.write(path, "[1]", "key")
    path.write_text("[2]")
    with pytest.raises(InputError, match=r"result\.json: SHA-256 is .* changed after it was written\. Run the recipe again"):
        seals.told_of(path)
    seals.write(path, "[1]", "key")
    assert seals.told_of(path) == "key"


def test_one_without_a_seal_is_read(path: Path) -> None:
    path.write_text("[1]")
    assert seals.told_of(path) is None


@pytest.mark.parametrize("writes", [1, 2])
def test_a_writer_that_was_killed_leaves_the_old_file_or_the_new_one(
    writes: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seals.write(path, "[1]", "old")
    done = []

    def deadly(write):
        def call(*arguments):
            if len(done) == writes:
                raise KeyboardInterrupt
            done.append(arguments)
            write(*arguments)

        return call

    monkeypatch.setattr(seals, "write_json", deadly(write_json))
    monkeypatch.setattr(seals, "write_text", deadly(write_text))
    with pytest.raises(KeyboardInterrupt):
        seals.write(path, "[2]", "new")
    assert (path.read_text(), seals.told_of(path)) == (("[1]", "old"), ("[2]", "new"))[writes - 1]
    monkeypatch.undo()
    seals.write(path, "[3]", "newest")
    assert seals.told_of(path) == "newest" and len(json.loads((path.parent / "record.json").read_text())["sealed"]) == 1


@pytest.mark.parametrize("sealed", [[], {"result.json": []}, {"result.json": "text"}])
def test_a_seal_that_is_none_is_named(sealed: object, path: Path) -> None:
    path.write_text("[1]")
    record = path.parent / "record.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "sealed": sealed}))
    with pytest.raises(InputError, match=r"record\.json: sealed: .* is .*, expected an object; run the recipe again"):
        seals.told_of(path)
