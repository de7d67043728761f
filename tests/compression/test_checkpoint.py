"""Checkpoints: what is loaded answers bit for bit as what was saved."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from optkit import Distill, Quantize, Sparsify
from optkit.compression import checkpoint, quantizers
from optkit.compression.context import Context
from optkit.compression.student import student
from optkit.core.errors import InputError
from optkit.core.json_door import read_json
from optkit.models.families import encoder_linears
from optkit.models.loading import LoadedModel, inference
from optkit.tasks.base import Feed, Task
from optkit.tasks.classification import Classification
from optkit.tasks.collate import Collator

HISTORY = [{"step": 3, "epoch": 1.0, "loss": 0.5, "learning_rate": 1e-5}]


@pytest.fixture
def feed(tiny_model: LoadedModel) -> Feed:
    collate = Collator(tiny_model.tokenizer).feed
    return collate(tiny_model.tokenizer(["a lovely film", "this dull story with the poor cast"]).data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "checkpoint").mkdir()
    return tmp_path / "checkpoint"


def logits(loaded: LoadedModel, feed: Feed) -> np.ndarray:
    return inference(loaded.model, Classification)(feed)


def test_a_float_model(tiny_model: LoadedModel, tiny_task: Task, feed: Feed, folder: Path) -> None:
    checkpoint.save(tiny_model, [], HISTORY, folder)
    loaded = checkpoint.load(folder, tiny_task)
    assert not loaded.model.training
    assert np.array_equal(logits(loaded, feed), logits(tiny_model, feed))
    assert loaded.model.config.id2label == {0: "bad", 1: "good"}
    assert loaded.tokenizer.get_vocab() == tiny_model.tokenizer.get_vocab()
    assert loaded.tokenizer.model_max_length == 16


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("calibrator", ["max", "mse"])
def test_a_quantised_model(
    clip: float | None,
    calibrator: str,
    tiny_model: LoadedModel,
    tiny_task: Task,
    tiny_context: Context,
    feed: Feed,
    folder: Path,
) -> None:
    plain = logits(tiny_model, feed)
    stage = Quantize(gelu_clip=clip, calibrator=calibrator, calibration_examples=32)
    stage.apply(tiny_model, tiny_context)
    expected = logits(tiny_model, feed)
    assert not np.array_equal(expected, plain)
    checkpoint.save(tiny_model, [stage], [], folder)
    loaded = checkpoint.load(folder, tiny_task)
    assert np.array_equal(logits(loaded, feed), expected)
    saved, found = quantizers.quantisers(tiny_model.model), quantizers.quantisers(loaded.model)
    assert saved.keys() == found.keys()
    assert all(torch.equal(saved[name].amax, found[name].amax) for name in saved)


def test_what_lies_in_the_folder(tiny_model: LoadedModel, folder: Path) -> None:
    checkpoint.save(tiny_model, [Quantize(gelu_clip=6)], HISTORY, folder)
    assert checkpoint.stages_of(folder) == [Quantize(gelu_clip=6)]
    assert read_json(folder / "history.json") == HISTORY
    assert {"python", "optkit", "torch", "transformers", "nvidia-modelopt"} <= read_json(folder / "versions.json").keys()
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "recipe.json"} <= names
    assert not {name for name in names if name.endswith((".py", ".bin", ".pt", ".pkl"))}


def test_scales_that_came_with_the_model_stay_with_the_baseline(
    tiny_model: LoadedModel, tiny_task: Task, tiny_context: Context, folder: Path
) -> None:
    tiny_model.amax = {"encoder.input_quantizer": torch.tensor(0.1)}
    checkpoint.save(tiny_model, [], [], folder)
    assert checkpoint.load(folder, tiny_task).amax == tiny_model.amax


def test_masks_that_came_with_the_model_stay_with_the_baseline(
    tiny_model: LoadedModel, tiny_task: Task, folder: Path
) -> None:
    tiny_model.masks = {"bert.encoder.layer.0.output.dense": torch.eye(32, 64).bool()}
    checkpoint.save(tiny_model, [], [], folder)
    loaded = checkpoint.load(folder, tiny_task)
    assert loaded.masks.keys() == tiny_model.masks.keys()
    assert all(torch.equal(loaded.masks[name], mask) for name, mask in tiny_model.masks.items())
    (folder / "masks.safetensors").unlink()
    checkpoint.save(tiny_model, [Sparsify(epochs=0)], [], folder)
    assert not (folder / "masks.safetensors").exists(), "they have been applied"


def test_a_sparse_model_takes_half_the_space_and_answers_the_same(
    tiny_model: LoadedModel, tiny_task: Task, tiny_context: Context, feed: Feed, tmp_path: Path
) -> None:
    sizes = []
    for name, stages in {"dense": [], "sparse": [Sparsify(epochs=0)]}.items():
        for stage in stages:
            stage.apply(tiny_model, tiny_context)
        (tmp_path / name).mkdir()
        checkpoint.save(tiny_model, stages, [], tmp_path / name)
        sizes.append(sum(tensor.nbytes for tensor in load_file(tmp_path / name / "model.safetensors").values()))
    loaded = checkpoint.load(tmp_path / "sparse", tiny_task)
    assert np.array_equal(logits(loaded, feed), logits(tiny_model, feed))
    pruned = sum(linear.weight.nbytes for linear in encoder_linears(tiny_model.model).values())
    assert sizes[0] - sizes[1] == pruned * (1 - 1 / 2 - 1 / 32)


def test_a_student_is_loaded_in_its_own_size(tiny_model: LoadedModel, tiny_task: Task, feed: Feed, folder: Path) -> None:
    tiny_model.model = student(tiny_model.model, 1, 16).eval()
    checkpoint.save(tiny_model, [Distill(layers=1, hidden_size=16)], [], folder)
    loaded = checkpoint.load(folder, tiny_task)
    assert (loaded.model.config.num_hidden_layers, loaded.model.config.hidden_size) == (1, 16)
    assert np.array_equal(logits(loaded, feed), logits(tiny_model, feed))


def edit(folder: Path, **tensors: torch.Tensor | None) -> None:
    found = {**load_file(folder / "model.safetensors"), **tensors}
    save_file({name: tensor for name, tensor in found.items() if tensor is not None}, folder / "model.safetensors")


def test_missing_and_unexpected_tensors_are_named(tiny_model: LoadedModel, tiny_task: Task, folder: Path) -> None:
    checkpoint.save(tiny_model, [], [], folder)
    edit(folder, **{"classifier.bias": None, "classifier.extra": torch.zeros(1)})
    message = r"model\.safetensors: missing tensors \['classifier\.bias'\], unexpected \['classifier\.extra'\]"
    with pytest.raises(InputError, match=message):
        checkpoint.load(folder, tiny_task)


def test_a_tensor_of_another_shape_is_named(tiny_model: LoadedModel, tiny_task: Task, folder: Path) -> None:
    checkpoint.save(tiny_model, [], [], folder)
    edit(folder, **{"classifier.bias": torch.zeros(3)})
    with pytest.raises(InputError, match=r"classifier\.bias has shape \[3\], expected \[2\]"):
        checkpoint.load(folder, tiny_task)


def test_a_missing_scale_is_named(tiny_model: LoadedModel, tiny_task: Task, tiny_context: Context, folder: Path) -> None:
    Quantize(calibration_examples=8).apply(tiny_model, tiny_context)
    checkpoint.save(tiny_model, [Quantize()], [], folder)
    name = "bert.encoder.layer.0.output.dense.input_quantizer"
    edit(folder, **{f"{name}._amax": None})
    with pytest.raises(InputError, match=rf"the checkpoint's scales do not fit the model:\n  - {name}: no scale"):
        checkpoint.load(folder, tiny_task)


def test_stages_with_an_unknown_setting_are_not_guessed(tiny_model: LoadedModel, folder: Path) -> None:
    checkpoint.save(tiny_model, [], [], folder)
    (folder / "recipe.json").write_text('[{"technique": "quantize", "gelu_clp": 6}]')
    with pytest.raises(InputError, match="gelu_clp"):
        checkpoint.stages_of(folder)
