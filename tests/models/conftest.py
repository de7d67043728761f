"""A fine-tuned model in a folder, and how its files are changed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from optkit.core.errors import InputError
from optkit.models import loading
from optkit.models.loading import LoadedModel
from optkit.tasks.base import Task
from tests.conftest import saved

Tensors = dict[str, torch.Tensor]
Refusal = Callable[[], str]


@pytest.fixture
def folder(tiny_model: LoadedModel, tmp_path: Path) -> Path:
    """A fine-tuned model as `save_pretrained` leaves it."""
    return saved(tiny_model, tmp_path / "model")


@pytest.fixture
def refusal(folder: Path, tiny_task: Task) -> Refusal:
    """What is said when the folder is refused."""

    def load() -> str:
        with pytest.raises(InputError) as error:
            loading.load(str(folder), tiny_task)
        return str(error.value)

    return load


def edit_weights(folder: Path, change: Callable[[Tensors], object]) -> None:
    """Change the tensors of a folder's weights."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def edit_json(path: Path, **changes: object) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
