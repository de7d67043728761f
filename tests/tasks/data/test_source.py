"""Data sets that `save_to_disk` wrote, and names on the hub."""

import time

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets.exceptions import DatasetNotFoundError

from optkit.core.errors import InputError, MachineError
from optkit.tasks.data import hub
from optkit.tasks.data.hub import HubData
from optkit.tasks.registry import load

ROWS = Dataset.from_dict(
    {"body": ["bad", "good"], "mood": [1, 0]},
    features=Features({"body": Value("string"), "mood": ClassLabel(names=["up", "down"])}),
)


def test_a_saved_dictionary_and_saved_folders(tmp_path) -> None:
    DatasetDict({"train": ROWS, "test": ROWS.select([0])}).save_to_disk(tmp_path / "all")
    for split in ("train", "validation"):
        ROWS.save_to_disk(tmp_path / "each" / split)
    for folder, size in (("all", 1), ("each", 2)):
        task = load("classification", tmp_path / folder, text_column="body", label_column="mood")
        assert (task.labels, len(task.examples("dev"))) == (("up", "down"), size)
        assert task.examples("train").to_dict() == {"text": ["bad", "good"], "label": [1, 0]}


def test_one_data_set_is_not_two_splits(tmp_path) -> None:
    ROWS.save_to_disk(tmp_path / "one")
    with pytest.raises(InputError, match=r"found one data set; expected a DatasetDict .*train_test_split"):
        load("classification", tmp_path / "one")
    DatasetDict({"train": ROWS}).save_to_disk(tmp_path / "half")
    with pytest.raises(InputError, match="found no dev split among train"):
        load("classification", tmp_path / "half")


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(path.read_bytes()[:50]), lambda path: path.unlink()])
def test_a_damaged_data_set_is_named(damage, tmp_path) -> None:
    DatasetDict({"train": ROWS, "dev": ROWS}).save_to_disk(tmp_path)
    damage(next((tmp_path / "train").glob("*.arrow")))
    with pytest.raises(InputError, match=f"{tmp_path}: found a data set that cannot be read"):
        load("classification", tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hub:imdb", HubData("imdb")),
        ("hub:nyu-mll/glue/mnli", HubData("nyu-mll/glue", "mnli")),
        ("hub:a/b@v1#train=x,dev=y", HubData("a/b", None, "v1", (("train", "x"), ("dev", "y")))),
    ],
)
def test_names_on_the_hub(text: str, expected: HubData) -> None:
    assert HubData.parse(text) == expected


@pytest.mark.parametrize("text", ["hub:", "hub:a/b/c/d", "hub:a b", "hub:a#test=x", "hub:a#dev"])
def test_what_names_nothing_on_the_hub(text: str) -> None:
    with pytest.raises(InputError, match="expected hub:OWNER/NAME"):
        HubData.parse(text)


@pytest.mark.parametrize(
    "error",
    [
        DatasetNotFoundError("Dataset 'a/b' doesn't exist on the Hub or cannot be accessed."),
        ValueError("BuilderConfig 'x' not found. Available: ['y']"),
        ValueError("Config name is missing."),
        RuntimeError("Dataset scripts are no longer supported, but found b.py"),
    ],
)
def test_what_the_hub_does_not_have_is_the_users_to_mend(error: Exception, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(InputError, match="--data hub:a/b/x: the hub does not give it"):
        hub.fetch(HubData.parse("hub:a/b/x"))


def test_without_a_connection_nothing_is_tried_again(monkeypatch) -> None:
    monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    started = time.monotonic()
    with pytest.raises(MachineError, match="cannot be fetched"):
        hub.fetch(HubData.parse("hub:nobody/nothing"))
    assert time.monotonic() - started < 10
    assert datasets.config.HF_HUB_OFFLINE is False


def test_chosen_splits_of_the_hub(monkeypatch) -> None:
    asked = []

    def fetch(*what: object, **more: object) -> DatasetDict:
        asked.append((what, more))
        return DatasetDict({"train": ROWS, "matched": ROWS.select([0]), "mismatched": ROWS.select([1])})

    monkeypatch.setattr(datasets, "load_dataset", fetch)
    found = hub.fetch(HubData.parse("hub:a/b/c@1#dev=mismatched"))
    assert (found["dev"]["body"][:], asked) == (["good"], [(("a/b", "c"), {"revision": "1"})])
    with pytest.raises(InputError, match="hub:a/b: found no dev split among train, matched, mismatched"):
        hub.fetch(HubData.parse("hub:a/b"))
