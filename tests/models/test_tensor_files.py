"""Files with weights that are not there, not whole, or called otherwise: each is named, with what to do."""

import shutil
from pathlib import Path

import pytest
import torch

from optkit.core.errors import InputError
from optkit.models import loading
from optkit.models.loading import LoadedModel
from optkit.tasks.base import Task
from tests.models.conftest import Refusal, edit_json
from tests.tasks.sentence_models import sentence_model

INDEX = "model.safetensors.index.json"


@pytest.fixture
def shards(folder: Path, tiny_model: LoadedModel) -> list[Path]:
    """Files of a model in shards, which lie in `folder`."""
    (folder / "model.safetensors").unlink()
    tiny_model.model.save_pretrained(folder, max_shard_size="20KB")
    found = sorted(folder.glob("model-*"))
    assert len(found) > 2
    return found


def test_shards_that_are_not_there_are_counted(shards: list[Path], folder: Path, refusal: Refusal) -> None:
    shards[1].unlink()
    said = f"1 of the {len(shards)} files with weights that {INDEX} names are not there ({shards[1].name}); download the"
    assert refusal().startswith(f"--model {folder}: {said} folder again")
    shards[2].unlink()
    assert f"2 of the {len(shards)} files with weights" in refusal() and f"({shards[1].name}, …)" in refusal()


def test_shards_without_their_index(shards: list[Path], folder: Path, refusal: Refusal) -> None:
    (folder / INDEX).unlink()
    assert f"no {INDEX}, which says which tensors are in {shards[0].name} and the others like it; download" in refusal()


def test_weights_that_are_called_otherwise(folder: Path, refusal: Refusal) -> None:
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    assert "no model.safetensors in it; if model.fp16.safetensors is the model, rename it to model.safeten" in refusal()


@pytest.mark.parametrize(("size", "why"), [(0, "header too small"), (5000, "incomplete metadata, file not fully covered")])
def test_a_file_that_is_not_whole_is_named(size: int, why: str, folder: Path, refusal: Refusal) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    said = f"model.safetensors is damaged, or was not written to its end ({why}; it has {size:,} bytes); download it again"
    assert said in refusal()


def test_an_attention_of_a_package_that_is_not_there_is_pytorchs(
    folder: Path, tiny_model: LoadedModel, tiny_task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for name in ("attn_implementation", "_attn_implementation"):
        edit_json(folder / "config.json", **{name: "flash_attention_2"})
    found = loading.load(folder, tiny_task).model
    ids = torch.tensor([[2, 7, 8, 3]])
    with torch.no_grad():
        assert torch.allclose(found.eval()(ids).logits, tiny_model.model.eval()(ids).logits, atol=1e-6)
    assert "config.json: attention is 'flash_attention_2', which changes no logits: taken as PyTorch's own" in caplog.text


def test_a_sentence_model_whose_weights_lie_elsewhere_says_where(tmp_path: Path, tiny_task: Task) -> None:
    folder = sentence_model(tmp_path / "model")
    (folder / "0_Transformer").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.move(folder / name, folder / "0_Transformer")
    modules = folder / "modules.json"
    modules.write_text(modules.read_text().replace('"path": ""', '"path": "0_Transformer"', 1))
    with pytest.raises(InputError, match="its Transformer lies in 0_Transformer/, expected in the folder itself"):
        loading.load(folder, tiny_task)
