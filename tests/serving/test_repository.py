"""An engine is placed as a whole or not at all, and nothing in a repository points out of it."""

import os
from pathlib import Path

import pytest

from optkit.core.errors import InputError, MachineError
from optkit.serving import config, repository
from optkit.serving.config import ModelConfig

from . import toy

CONFIG = ModelConfig("m", ("input_ids", "attention_mask"), (2,))


@pytest.fixture
def engine(tmp_path):
    return toy.folder(tmp_path / "engine")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "repository"


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


@pytest.mark.parametrize("link", [False, True])
def test_a_model_is_placed_whole(root, engine, link):
    version = repository.place(root, engine, CONFIG, link=link)
    assert version == root / "m/1"
    assert files(root) == ["m/1/engine/engine.json", "m/1/engine/weights.bin", "m/1/model.py", "m/config.pbtxt"]
    assert config.read((root / "m/config.pbtxt").read_text()) == CONFIG
    assert (version / "engine/weights.bin").read_bytes() == (engine / "weights.bin").read_bytes()
    assert (version / "engine/weights.bin").samefile(engine / "weights.bin") == link


@pytest.mark.parametrize("link", [False, True])
def test_a_symbolic_link_becomes_a_file(root, engine, tmp_path, link):
    (engine / "weights.bin").rename(tmp_path / "elsewhere.bin")
    (engine / "weights.bin").symlink_to(tmp_path / "elsewhere.bin")
    version = repository.place(root, engine, CONFIG, link=link)
    assert not (version / "engine/weights.bin").is_symlink()
    assert (version / "engine/weights.bin").stat().st_size == 256


def test_versions_are_listed_as_triton_counts_them(root, engine):
    assert repository.models(root) == {}
    for version in (1, 2, 10):
        repository.place(root, engine, CONFIG, version)
    repository.place(root, engine, ModelConfig("a", CONFIG.inputs, (2,)))
    (root / "m/03").mkdir()
    (root / "no model").mkdir()
    (root / ".staging-x/m").mkdir(parents=True)
    (root / ".staging-x/config.pbtxt").touch()
    assert repository.models(root) == {"a": (1,), "m": (1, 2, 10)}


def test_another_version_brings_its_configuration(root, engine):
    repository.place(root, engine, CONFIG)
    wider = ModelConfig("m", CONFIG.inputs, (2,), max_batch_size=8)
    repository.place(root, engine, wider, 2)
    assert config.read((root / "m/config.pbtxt").read_text()) == wider
    assert [path.name for path in root.iterdir()] == ["m"]


def test_what_is_there_is_not_replaced(root, engine):
    repository.place(root, engine, CONFIG)
    with pytest.raises(InputError, match=r"'m': version 1 is already in .*Use version 2"):
        repository.place(root, engine, CONFIG)
    with pytest.raises(InputError, match=r"found version 0, expected 1 or more"):
        repository.place(root, engine, CONFIG, 0)


def test_a_folder_without_an_engine_is_refused(root, tmp_path):
    with pytest.raises(InputError, match=r"found no engine.json there. Build the engine first"):
        repository.place(root, tmp_path, CONFIG)
    assert not root.exists()


def test_a_full_disk_leaves_nothing_behind(root, engine, monkeypatch):
    repository.place(root, engine, ModelConfig("other", CONFIG.inputs, (2,)))
    before = files(root)

    def full(source, destination):
        Path(destination).write_bytes(b"half")
        raise OSError(28, "No space left on device", destination)

    monkeypatch.setattr(repository.shutil, "copy2", full)
    with pytest.raises(MachineError, match=r"cannot place version 1 of 'm': .*No space left.*Free some space"):
        repository.place(root, engine, CONFIG)
    assert files(root) == before and [path.name for path in root.iterdir()] == ["other"]


def test_a_destination_that_cannot_be_written_is_named(engine, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match=r"file/repository: cannot place version 1 of 'm': Not a directory"):
        repository.place(tmp_path / "file/repository", engine, CONFIG)


@pytest.mark.skipif(os.geteuid() == 0, reason="needs an ordinary user: root writes everywhere")
def test_a_read_only_repository_is_named(root, engine):
    root.mkdir(mode=0o555)
    with pytest.raises(MachineError, match=r"Permission denied"):
        repository.place(root, engine, CONFIG)
    assert list(root.iterdir()) == []


def test_another_file_system_gets_copies(root, engine, monkeypatch):
    def refuse(*arguments, **settings):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(repository.os, "link", refuse)
    version = repository.place(root, engine, CONFIG, link=True)
    assert (version / "engine/weights.bin").stat().st_nlink == 1
