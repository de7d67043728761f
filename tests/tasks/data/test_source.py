"""Data sets that `save_to_disk` wrote, and names on the hub."""

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from optkit.core.errors import InputError
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
