"""Checkpoints: a trained model on disk with everything needed to load it again and to say where it came from.

A folder holds `model.safetensors` (weights, and the quantisers' amax), `config.json`, the tokenizer, `recipe.json` (the
stages the model has gone through), `history.json`, `versions.json`, of tasks that fit some `thresholds.json`, and of stages
that had something to say `remarks.json`. Nothing in it is code or pickle: what a stage has added to the model, such as
quantisers, it adds again by its settings, and then the tensors are read. 2:4 weights take half the space: their values and
2-bit indices are stored (see `optkit.models.two_to_four`). Weights that share their blocks take a byte for each
(see `optkit.models.shared_blocks`).
"""

import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from optkit.compression.registry import stage_of
from optkit.core.atomic import write_json
from optkit.core.errors import InputError
from optkit.core.json_door import read_json
from optkit.models import (
    checkpoint_remarks,
    checkpoint_tensors,
    config_door,
    loading,
    shared_blocks,
    tensor_files,
    thresholds_file,
    tokenizers,
    two_to_four,
)
from optkit.models.loading import LoadedModel
from optkit.recipe.stage import Stage
from optkit.tasks.base import Task

_FOREIGN = {"amax": checkpoint_tensors.AMAX_FILE, "masks": checkpoint_tensors.MASKS_FILE}
"""What came with the model the baseline was made from, for the stages that follow."""
_VERSIONS = ("optkit", "torch", "transformers", "accelerate", "nvidia-modelopt", "datasets", "numpy")


def save(loaded: LoadedModel, stages: Sequence[Stage], history: list[dict[str, Any]], folder: Path) -> None:
    """Write a model that has gone through `stages` into an existing folder."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in loaded.model.state_dict().items()}
    stored = two_to_four.compress(shared_blocks.compress(_without_copies(tensors)))
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    loaded.model.config.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    for name, file in _FOREIGN.items():
        if getattr(loaded, name) and not stages:
            save_file(getattr(loaded, name), folder / file)
    thresholds_file.write(folder, loaded.thresholds)
    checkpoint_remarks.write(folder, loaded.remarks)
    write_json(folder / loading.RECIPE, [stage.model_dump(mode="json") for stage in stages])
    write_json(folder / "history.json", history)
    write_json(folder / "versions.json", versions())


def load(folder: Path, task: Task) -> LoadedModel:
    """The model of a checkpoint, in eval mode, with its quantisers calibrated as they were saved.

    Raises:
        InputError: tensors are missing, left over, or of another shape, or what a stage reached does not hold.
        GateError: a group of a sparse weight has lost its zeros.
    """
    with loading.reading(str(folder)):
        loaded = loading.new(config_door.read(folder), tokenizers.load(folder, str(folder)), task)
    tensors = shared_blocks.restore(two_to_four.restore(tensor_files.tensors(folder)))
    stages = stages_of(folder)
    for stage in stages:
        stage.restore(loaded.model, tensors)
    _check_shapes(loaded.model, tensors, folder)
    missing, unexpected = loaded.model.load_state_dict(tensors, strict=False)
    missing = [name for name in missing if name not in _tied(loaded.model)]
    if missing or unexpected:
        raise InputError(f"{folder}/model.safetensors: missing tensors {missing[:5]}, unexpected {unexpected[:5]}")
    loaded.model.eval()
    loaded.thresholds, loaded.remarks = thresholds_file.read(folder), checkpoint_remarks.read(folder)
    for stage in stages:
        stage.check(loaded.model, f"in {folder}/model.safetensors")
    for name, file in _FOREIGN.items():
        if (folder / file).is_file():
            setattr(loaded, name, load_file(folder / file))
    return loaded


def stages_of(folder: Path) -> list[Stage]:
    """The stages a checkpoint has gone through.

    Raises:
        InputError: `recipe.json` has a technique that is not known here, settings that it does not have, or values that
            none takes.
    """
    path = folder / loading.RECIPE
    found = read_json(path)
    if not isinstance(found, list) or not all(isinstance(settings, dict) for settings in found):
        raise InputError(f"{path}: not a list of stages; delete {folder} to have it made again")
    try:
        return [stage_of(settings) for settings in found]
    except InputError as error:
        fix = f"Install what wrote these stages, or delete {folder} to have it made again"
        raise InputError(f"{path}: {error}\n{fix}") from error


def versions() -> dict[str, str]:
    """What a result was made with."""
    found = {name: importlib.metadata.version(name) for name in _VERSIONS}
    return {"python": platform.python_version(), **found}


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
