"""Heads of one value that end in a sigmoid: model, graph and checkpoint give the value of sentence-transformers."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

import optkit
from optkit.core.errors import InputError
from optkit.graph import reference
from optkit.models import loading

PAIRS = [
    ("a lovely film", "this dull plot"),
    ("the story with a cast", "a lovely cast"),
    ("dull", "awful"),
    ("poor", "bad plot"),
]
SIGMOID, IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"


@pytest.fixture
def folder(tiny_config: BertConfig, tiny_tokenizer: BertTokenizerFast, tmp_path: Path) -> Path:
    """A cross-encoder of one value, whose configuration says nothing of its activation."""
    torch.manual_seed(0)
    config = BertConfig(**{**tiny_config.to_dict(), "num_labels": 1, "id2label": None, "label2id": None})
    BertForSequenceClassification(config).save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"sentence1": one, "sentence2": two, "label": 0.2 * number} for number, (one, two) in enumerate(PAIRS)]
    (tmp_path / "data").mkdir()
    for split in ("train", "dev"):
        (tmp_path / "data" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "data"


def state(folder: Path, **more: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))


def values(model: loading.LoadedModel) -> np.ndarray:
    assert model.task is not None
    feed = dict(model.tokenizer(*map(list, zip(*PAIRS, strict=True)), padding=True, return_tensors="np"))
    return loading.inference(model.model, model.task)(feed)[:, 0]


@pytest.mark.parametrize(
    "stated",
    [
        {"sentence_transformers": {"activation_fn": SIGMOID}},
        {"sentence_transformers": {"activation_fn": IDENTITY}},
        {"sbert_ce_default_activation_function": SIGMOID},
        {"sbert_ce_default_activation_function": IDENTITY, "problem_type": "multi_label_classification"},
    ],
)
def test_the_value_is_the_librarys(stated: dict[str, object], folder: Path, data: Path, tmp_path: Path) -> None:
    state(folder, **stated)
    expected = CrossEncoder(str(folder), device="cpu").predict(PAIRS)
    task = optkit.load_task("regression", data=str(data))
    model = optkit.load_model(folder, task)
    assert model.fine_tuned and np.allclose(values(model), expected, atol=1e-6)
    graph = optkit.export_onnx(model, tmp_path / "graph")
    feed = dict(model.tokenizer(*map(list, zip(*PAIRS, strict=True)), padding=True, return_tensors="np"))
    assert np.allclose(reference.infer(reference.load(graph), feed)[:, 0], expected, atol=1e-5)
    written = task.library_files(folder, model.tokenizer)["config.json"]
    assert written["problem_type"] == "regression" and not stated.keys() & written.keys() - {"problem_type"}
    model.model.save_pretrained(tmp_path / "again")
    model.tokenizer.save_pretrained(tmp_path / "again")
    assert np.allclose(values(optkit.load_model(tmp_path / "again", task)), expected, atol=1e-6)


def test_values_beyond_a_sigmoid_are_said(folder: Path, data: Path, caplog: pytest.LogCaptureFixture) -> None:
    state(folder, sentence_transformers={"activation_fn": SIGMOID})
    task = optkit.load_task("regression", data=str(data))
    with caplog.at_level(logging.WARNING):
        optkit.load_model(folder, task)
        assert not caplog.records
        for split in ("train", "dev"):
            path = data / f"{split}.jsonl"
            path.write_text(path.read_text().replace("0.4", "4.5"))
        optkit.load_model(folder, optkit.load_task("regression", data=str(data)))
    assert "lie between 0 and 1, those of the data between 0 and 4.5" in caplog.text


def test_what_a_graph_does_not_have_is_refused(folder: Path, data: Path) -> None:
    task = optkit.load_task("regression", data=str(data))
    state(folder, sentence_transformers={"activation_fn": SIGMOID})
    bare = BertForSequenceClassification.from_pretrained(folder)
    with pytest.raises(InputError, match="its value ends in a sigmoid, which it does not compute itself"):
        loading.loaded_model(bare, task, optkit.load_model(folder, task).tokenizer)
    state(folder, sentence_transformers={"activation_fn": "torch.nn.modules.activation.Tanh"})
    with pytest.raises(InputError, match="activation_fn is 'tanh', expected Sigmoid or Identity"):
        optkit.load_model(folder, task)
