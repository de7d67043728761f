"""Thresholds of a model: fitted after training, and kept with its checkpoint, its graph and its engines."""

import copy
import logging
from pathlib import Path

import pytest
import torch

import optkit
from optkit.compression import checkpoint
from optkit.core.errors import InputError
from optkit.evaluation.evaluate import evaluate
from optkit.models import loading, thresholds_file
from optkit.models.loading import LoadedModel
from optkit.tasks.base import Task
from optkit.tasks.collate import Collator
from optkit.tasks.registry import load
from optkit.training import thresholds


@pytest.fixture
def task(tiny_data: Path, tmp_path: Path) -> Task:
    """The tiny texts with two labels: their opinion, and whether they are about a film."""
    for split in ("train", "dev"):
        rows = [line.split("\t") for line in (tiny_data / f"{split}.tsv").read_text().splitlines()[1:]]
        lines = [f"{text},{int(label == 'good')},{int('film' in text)}" for text, label in rows]
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,good,film", *lines]) + "\n")
    return load("multi_label", tmp_path)


@pytest.fixture
def model(task: Task, tiny_config, tiny_tokenizer) -> LoadedModel:
    """A model of random weights, whose best thresholds are not 0."""
    torch.manual_seed(0)
    config = copy.deepcopy(tiny_config)
    config.update({**task.config, "id2label": dict(enumerate(task.labels)), "label2id": {"good": 0, "film": 1}})
    return loading.new(config, tiny_tokenizer, task)


def fitted(model: LoadedModel, task: Task) -> tuple[float, ...]:
    features = task.encode("train", model.tokenizer)
    thresholds.fit(model, task, features, Collator.of(task, model.tokenizer))
    return model.thresholds


def test_they_are_fitted_on_train(model: LoadedModel, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    found = fitted(model, task)
    assert len(found) == 2 and all(found)
    monkeypatch.setattr(thresholds, "EXAMPLES", 20)
    assert fitted(model, task) != found


def test_tasks_without_any_are_left_alone(tiny_model: LoadedModel, tiny_task: Task) -> None:
    assert fitted(tiny_model, tiny_task) == ()


def test_a_checkpoint_keeps_them(model: LoadedModel, task: Task, tmp_path: Path) -> None:
    found = fitted(model, task)
    (folder := tmp_path / "checkpoint").mkdir()
    checkpoint.save(model, [], [], folder)
    assert checkpoint.load(folder, task).thresholds == found == loading.load(folder, task).thresholds


@pytest.mark.slow
def test_graph_and_engine_decide_by_them(
    model: LoadedModel, task: Task, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    usual = evaluate(model, task).scores
    assert "no thresholds were fitted for this model: it is scored by the usual ones" in caplog.text
    caplog.clear()
    fitted(model, task)
    own = evaluate(model, task).scores
    assert own["micro_f1"] != usual["micro_f1"] and own["lrap"] == usual["lrap"]
    graph = optkit.export_onnx(model, tmp_path / "out", task=task)
    assert thresholds_file.read(graph.parent) == model.thresholds
    engine = optkit.build_engine(graph, "onnxruntime", "fp32")
    caplog.clear()
    assert evaluate(engine, task).scores == own
    assert not [one.message for one in caplog.records if one.levelno >= logging.WARNING]
    assert task.thresholds == ()  # it serves other models too


@pytest.mark.slow
def test_what_changes_a_model_fits_them_anew(model: LoadedModel, task: Task) -> None:
    before = fitted(model, task)
    optkit.quantize_(model, task=task)
    assert len(model.thresholds) == 2 and model.thresholds != before


@pytest.mark.parametrize("content", ['{"a": 1}', "[1.0, null]", "[1e999, 0.0]", "[1.0]"])
def test_a_broken_file_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "thresholds.json").write_text(content)
    with pytest.raises(InputError, match=r"thresholds\.json"):
        thresholds_file.read(tmp_path, 2)
