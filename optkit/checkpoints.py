"""Checkpoints: a trained model on disk with everything needed to load it again and to say where it came from.

A folder holds `model.safetensors` (weights, and the quantisers' amax), `config.json`, the tokenizer, `recipe.json` (the
stages the model has gone through), `history.json` and `versions.json`. Nothing in it is code or pickle: the quantisers
are inserted again from the recipe, and their scales read from the tensors.
"""

import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

from optkit import models
from optkit.errors import InputError
from optkit.models import Loaded
from optkit.recipe import Quantize, RecipeError, Stage
from optkit.store import read_json, write_json
from optkit.tasks.base import Task

_FOREIGN = "amax.safetensors"  # scales that came with the model the baseline was made from
_VERSIONS = ("optkit", "torch", "transformers", "accelerate", "nvidia-modelopt", "datasets", "numpy")


def save(loaded: Loaded, stages: Sequence[Stage], history: list[dict[str, Any]], folder: Path) -> None:
    """Write a model that has gone through `stages` into an existing folder."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in loaded.model.state_dict().items()}
    save_file(_without_copies(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    loaded.model.config.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    if loaded.amax and not stages:
        save_file(loaded.amax, folder / _FOREIGN)
    write_json(folder / "recipe.json", [stage.model_dump(mode="json") for stage in stages])
    write_json(folder / "history.json", history)
    write_json(folder / "versions.json", versions())


def load(folder: Path, task: Task) -> Loaded:
    """The model of a checkpoint, in eval mode, with its quantisers calibrated as they were saved.

    Raises:
        InputError: tensors are missing, left over, or of another shape.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    loaded = models.new(config, tokenizer, task)
    tensors = models.tensors(folder)
    for stage in stages_of(folder):
        _prepare(loaded.model, stage, tensors)
    _check_shapes(loaded.model, tensors, folder)
    missing, unexpected = loaded.model.load_state_dict(tensors, strict=False)
    missing = [name for name in missing if name not in _tied(loaded.model)]
    if missing or unexpected:
        raise InputError(f"{folder}/model.safetensors: missing tensors {missing[:5]}, unexpected {unexpected[:5]}")
    loaded.model.eval()
    if (folder / _FOREIGN).is_file():
        loaded.amax = load_file(folder / _FOREIGN)
    return loaded


def stages_of(folder: Path) -> list[Stage]:
    """The stages a checkpoint has gone through.

    Raises:
        InputError: `recipe.json` has settings that no stage has, or values that none takes.
    """
    path = folder / "recipe.json"
    try:
        return [Quantize(**settings).checked() for settings in read_json(path)]
    except (RecipeError, TypeError) as error:
        raise InputError(f"{path}: not a list of stages ({error}); delete {folder} to have it made again") from error


def versions() -> dict[str, str]:
    """What a result was made with."""
    found = {name: importlib.metadata.version(name) for name in _VERSIONS}
    return {"python": platform.python_version(), **found}


def _prepare(model: PreTrainedModel, stage: Stage, tensors: dict[str, torch.Tensor]) -> None:
    """Give the model the modules whose tensors the stage has left in the checkpoint."""
    from optkit.techniques import quantize

    quantize.insert(model, stage)
    amax = {name.removesuffix("._amax"): tensor for name, tensor in tensors.items() if name.endswith("._amax")}
    quantize.load_amax(model, amax)


def _check_shapes(model: PreTrainedModel, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    for name, expected in model.state_dict().items():
        if name in tensors and tensors[name].shape != expected.shape:
            raise InputError(
                f"{folder}/model.safetensors: {name} has shape {list(tensors[name].shape)}, expected "
                f"{list(expected.shape)} by config.json; delete {folder} to have it made again"
            )


def _tied(model: PreTrainedModel) -> set[str]:
    return set(getattr(model, "_tied_weights_keys", None) or ())


def _without_copies(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors that share memory are stored once, as safetensors demands."""
    seen: dict[int, str] = {}
    return {name: t for name, t in tensors.items() if seen.setdefault(t.data_ptr(), name) == name or not t.numel()}
