"""Where models come from: folders, and commits on the hub out of its cache, without a network."""

import shutil
import time
from pathlib import Path

import pytest

from optkit.core.errors import InputError, MachineError
from optkit.models import loading, model_source
from optkit.pipeline.run_spec import RunSpec
from optkit.tasks.base import Task

NAME = "someone/tiny-bert"
FIRST, SECOND = "a" * 40, "b" * 40


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub with two commits of a model: the first is tagged, the second is `main`."""
    cache = tmp_path / "hub"
    place = cache / "models--someone--tiny-bert"
    for commit in (FIRST, SECOND):
        shutil.copytree(folder, place / "snapshots" / commit)
    (place / "refs").mkdir()
    for name, commit in (("main", SECOND), ("v1", FIRST)):
        (place / "refs" / name).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return place


@pytest.mark.parametrize(("revision", "commit"), [(None, SECOND), ("main", SECOND), ("v1", FIRST), (FIRST, FIRST)])
def test_a_name_on_the_hub_is_one_commit(revision: str | None, commit: str, hub: Path) -> None:
    found = model_source.find(NAME, revision)
    assert (found.folder, found.commit) == (hub / "snapshots" / commit, commit)
    assert found.key() == {"hub": NAME, "commit": commit}


def test_a_model_on_the_hub_is_loaded_from_the_cache(hub: Path, tiny_task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    assert loading.load(NAME, tiny_task, revision="v1").fine_tuned
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert loading.load(NAME, tiny_task, local_files_only=True).fine_tuned
    assert loading.architecture(NAME, tiny_task, local_files_only=True).model.config.hidden_size == 32


def test_the_commit_is_in_the_key_of_every_result(hub: Path, tiny_task: Task, tmp_path: Path) -> None:
    def source(revision: str | None) -> object:
        return RunSpec(tiny_task, NAME, 0, tmp_path, {}, revision=revision).source["model"]

    assert source(None) == {"hub": NAME, "commit": SECOND} == source(SECOND)
    assert source("v1") == {"hub": NAME, "commit": FIRST}
    (hub / "refs" / "main").write_text(FIRST)
    assert source(None) == source("v1"), "the branch has moved"


def test_a_revision_that_is_not_there(hub: Path) -> None:
    with pytest.raises(MachineError, match=r"--model someone/tiny-bert: .* the hub does not give it at v2"):
        model_source.find(NAME, "v2")


def test_a_repository_without_safetensors(hub: Path, tiny_task: Task) -> None:
    (hub / "snapshots" / SECOND / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no \*\.safetensors in it; give a --revision that has them"):
        loading.load(NAME, tiny_task)


@pytest.mark.parametrize(
    "name",
    ["./nowhere", "../nowhere", "/nowhere", "~/nowhere", "a/b/c", "a\\b", "a b", "", "a/", "-a/b", "here/nowhere", "C:/x"],
)
def test_what_is_no_name_on_the_hub_is_no_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"no such folder; expected one with config\.json and model\.safetensors"):
        model_source.find(name)
    assert time.monotonic() - begun < 1


def test_a_name_that_nobody_gives_fails_at_once(hub: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(MachineError, match=r"--model someone/else: not a folder here, and the hub does not give it"):
        model_source.find("someone/else")
    assert time.monotonic() - begun < 5


def test_a_folder_has_no_revisions_and_a_file_is_no_folder(folder: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder here, which has no revisions; leave --revision v1 out"):
        model_source.find(folder, "v1")
    with pytest.raises(InputError, match=r"is a file; give the folder"):
        model_source.find(folder / "config.json")


@pytest.mark.parametrize("name", ["x" * 300, "./" + "x" * 300, "a/" * 3000, "nul\0nul"])
def test_names_that_no_path_can_have(name: str) -> None:
    with pytest.raises(InputError, match="--model "):
        model_source.find(name)


def test_a_model_in_memory_is_no_place(tiny_model: loading.LoadedModel) -> None:
    with pytest.raises(InputError, match=r"model: found a BertFor.*A model in memory is given to the functions as it is"):
        model_source.find(tiny_model.model)  # type: ignore[arg-type]
