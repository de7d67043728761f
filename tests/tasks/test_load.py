"""Tasks by name: what is loaded, and what is said when a name or setting is wrong."""

import subprocess
import sys

import datasets
import pytest

from optkit.core.errors import InputError, MachineError
from optkit.tasks import sample
from optkit.tasks.registry import TASKS, load

ROWS = "sentence\tlabel\n" + "".join(f"row {i}\t{i % 2}\n" for i in range(40))


def test_names_cost_no_heavy_import() -> None:
    code = "import sys, optkit.tasks.registry; print([m for m in ('torch', 'datasets', 'transformers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sst", "Did you mean 'sst2'?"),
        ("mnli", "Your own data: --task classification (or token_classification, multi_label, regression, qa)"),
    ],
)
def test_unknown_task(name: str, hint: str) -> None:
    with pytest.raises(InputError) as error:
        load(name)
    assert f"task {name!r}: no such task; expected one of {', '.join(TASKS.names())}. {hint}" in str(error.value)
    assert error.value.exit_status == 2


@pytest.mark.parametrize("name", ["classification", "qa"])
def test_a_folder_task_needs_data(name: str) -> None:
    with pytest.raises(InputError, match=f"task '{name}': no data; expected a folder .* Fix: --data DIR"):
        load(name)


def test_the_sample_takes_no_data(tmp_path) -> None:
    with pytest.raises(InputError, match=r"'sample': found --data .* Fix: leave --data out, or use --task classif"):
        load("sample", tmp_path)


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_is_positive(limit: int) -> None:
    with pytest.raises(InputError, match=f"found {limit}, expected 1 or more. Fix: --limit-train 1000"):
        load("sst2", limit_train=limit)


def test_options_are_names_and_values() -> None:
    with pytest.raises(InputError, match=r"options of a task: found \('unanswered', 'left_out'\), expected \{name: value\}"):
        load("reranking", ".", options=("unanswered", "left_out"))


@pytest.mark.parametrize("tokens", [4, "64", 64.0])
def test_a_longest_input_is_a_number_of_tokens(tokens: object) -> None:
    with pytest.raises(InputError, match=f"found {tokens!r}, expected 8 or more. Fix: --max-length 128"):
        load("sst2", max_length=tokens)


@pytest.mark.parametrize("name", ["sst2", "squad"])
def test_without_a_hub_a_folder_is_asked_for(name: str, monkeypatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(MachineError, match=r"Couldn't reach the Hub.* give a folder .*: --data DIR") as error:
        load(name)
    assert error.value.exit_status == 3


def both(rows: datasets.Dataset) -> datasets.DatasetDict:
    return datasets.DatasetDict({"train": rows, "validation": rows, "test": rows.select([])})


def test_sst2_from_the_hub_keeps_its_class_names(monkeypatch) -> None:
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["negative", "positive"])}
    )
    rows = datasets.Dataset.from_dict({"sentence": ["bad", "good"], "label": [0, 1]}, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, revision: both(rows))
    task = load("sst2")
    assert task.labels == ("negative", "positive")
    assert task.examples("dev").to_dict() == {"sentence": ["bad", "good"], "label": [0, 1]}


def test_squad_from_the_hub_is_checked(monkeypatch) -> None:
    row = {"id": "q", "title": "", "question": "who?", "context": "He did."}
    rows = datasets.Dataset.from_list([{**row, "answers": {"text": ["He"], "answer_start": [1]}}])
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, revision: both(rows))
    with pytest.raises(InputError, match="rajpurkar/squad, train, question 'q': found answer_start 1"):
        load("squad")


def test_the_sample_has_the_classes_and_length_it_names(monkeypatch) -> None:
    made = {"train": [{"text": "a", "label": 1}, {"text": "b", "label": 0}], "dev": [{"text": "c", "label": 1}]}
    for name, value in {"LABELS": ("night", "day"), "MAX_LENGTH": 24, "rows": made.__getitem__}.items():
        monkeypatch.setattr(sample, name, value)
    task = load("sample")
    assert (task.name, task.labels, task.max_length) == ("sample", ("night", "day"), 24)
    assert task.examples("train").to_dict() == {"text": ["a", "b"], "label": [1, 0]}
    assert len(load("sample", limit_train=1).examples("train")) == 1


def test_sst2_in_a_folder_is_classification(write) -> None:
    folder = write({"train.tsv": ROWS, "dev.tsv": ROWS})
    task = load("sst2", folder)
    assert (task.name, task.head, task.metric, task.max_length) == ("sst2", "classification", "accuracy", 512)
    assert task.fingerprint() == load("classification", folder).fingerprint()


def test_a_limit_keeps_the_same_shuffled_rows_and_changes_the_fingerprint(write) -> None:
    folder = write({"train.tsv": ROWS, "dev.tsv": ROWS})
    limited = load("classification", folder, limit_train=8)
    rows = limited.examples("train")["sentence"][:]
    assert len(rows) == 8 and rows != [f"row {i}" for i in range(8)]
    assert set(limited.examples("train")["label"]) == {0, 1}
    assert rows[:5] == load("classification", folder, limit_train=5).examples("train")["sentence"][:]
    assert len(limited.examples("dev")) == 40
    assert limited.fingerprint() != load("classification", folder).fingerprint()
    assert load("classification", folder, limit_train=40).fingerprint() == load("classification", folder).fingerprint()


def test_a_changed_text_changes_the_fingerprint(write) -> None:
    before = load("classification", write({"train.tsv": ROWS, "dev.tsv": ROWS})).fingerprint()
    after = load("classification", write({"dev.tsv": ROWS.replace("row 3\t", "Row 3\t")})).fingerprint()
    assert before != after
