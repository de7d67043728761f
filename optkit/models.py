"""Models: loading them without running anybody's code, saving them, and what optkit changes in their architecture."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from optkit.errors import InputError, MachineError
from optkit.losses import logits_of
from optkit.tasks.base import Feed, Task

DEFAULT_MODEL = "google-bert/bert-base-uncased"
_AUTO = {"classification": AutoModelForSequenceClassification, "question_answering": AutoModelForQuestionAnswering}
_HEADS = ("classifier.", "qa_outputs.")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


@dataclass
class Loaded:
    """A model with what came beside its weights."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    fine_tuned: bool = False
    """The task's head was in the checkpoint, so the model already answers the task."""
    amax: dict[str, torch.Tensor] = field(default_factory=dict)
    """Scales found in the checkpoint, `{quantiser's name: amax}`, as of ModelOpt or pytorch-quantization."""


class ClippedGELU(nn.Module):
    """GELU bounded above: GeLU10 for `clip=10` (Wu et al. 2020, arXiv 2004.09602, section 5)."""

    def __init__(self, clip: float) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.clamp(nn.functional.gelu(hidden), max=self.clip)


def clip_gelu(model: PreTrainedModel, clip: float) -> int:
    """Bound the GELU between the two feed-forward products of every layer; returns how many were replaced.

    Raises:
        InputError: where the model has no GELU in its feed-forward blocks.
    """
    blocks = [module for module in model.modules() if hasattr(module, "intermediate_act_fn")]
    if not blocks or not str(model.config.hidden_act).startswith("gelu"):
        raise InputError(
            f"gelu_clip={clip:g}: {type(model).__name__} has hidden_act {getattr(model.config, 'hidden_act', None)!r} "
            f"in {len(blocks)} feed-forward blocks; expected a GELU in each. Leave gelu_clip out for this model"
        )
    for block in blocks:
        block.intermediate_act_fn = ClippedGELU(clip)
    return len(blocks)


def encoder_linears(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The Linear modules of the encoder's layers by name; pooler, classifier and embeddings are not among them."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and re.search(r"\.layers?\.\d+\.", name)
    }


def load(source: str, task: Task) -> Loaded:
    """A model for the task from a hub name or a folder: safetensors only, and no code of the checkpoint's own.

    Raises:
        InputError: a folder without weights, config or tokenizer, a pickle, a file that cannot be read, or a head with
            another number of classes than the task.
        MachineError: the hub cannot be reached.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        _check_folder(folder)
        source = str(folder)
    elif source.startswith((".", "/", "~")):
        raise InputError(f"--model {source}: no such folder; expected one with config.json and model.safetensors")
    try:
        disable_progress_bar()
        set_verbosity_error()  # a missing head is reported by `fine_tuned`
        tokenizer = AutoTokenizer.from_pretrained(source)
        config = AutoConfig.from_pretrained(source, **_label_maps(task))
        model, report = _AUTO[task.head].from_pretrained(
            source, config=config, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=False
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _unloadable(source, folder.is_dir(), error) from error
    if not tokenizer.is_fast:
        raise InputError(f"--model {source}: its tokenizer has no fast version; add a tokenizer.json to the folder")
    fine_tuned = not any(name.startswith(_HEADS) for name in report["missing_keys"])
    return Loaded(model.float(), tokenizer, fine_tuned, _foreign_amax(folder) if folder.is_dir() else {})


def new(config: Any, tokenizer: PreTrainedTokenizerBase, task: Task) -> Loaded:
    """A model with random weights (torch's global seed) for a task that brings its own architecture."""
    return Loaded(_AUTO[task.head].from_config(config), tokenizer)


def inference(model: PreTrainedModel) -> Callable[[Feed], np.ndarray]:
    """The model as a function from a feed to float32 logits, on the GPU where there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    nn.Module.to(model, device).eval()

    @torch.inference_mode()
    def infer(feed: Feed) -> np.ndarray:
        output = model(**{name: torch.from_numpy(array).to(device) for name, array in feed.items()})
        return logits_of(output).float().cpu().numpy()

    return infer


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder's `model*.safetensors`."""
    found = {}
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, "pt") as file:
            found.update({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    return found


def _check_folder(folder: Path) -> None:
    weights = [*folder.glob("*.safetensors")]
    pickles = [path.name for pattern in _PICKLES for path in folder.glob(pattern)]
    if not weights and pickles:
        raise InputError(
            f"--model {folder}: {pickles[0]} is a pickle, which can run code when it is read; expected "
            "model.safetensors. Convert it where you trust it: "
            "`AutoModel….from_pretrained(folder).save_pretrained(folder, safe_serialization=True)`"
        )
    if not weights:
        raise InputError(f"--model {folder}: no *.safetensors in it; expected a folder saved by save_pretrained")
    if not (folder / "config.json").is_file():
        raise InputError(f"--model {folder}: no config.json in it; expected a folder saved by save_pretrained")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt", "vocab.json")):
        raise InputError(
            f"--model {folder}: no tokenizer in it (tokenizer.json or vocab.txt); save it there with "
            "`tokenizer.save_pretrained(folder)`"
        )


def _label_maps(task: Task) -> dict[str, Any]:
    if task.head != "classification":
        return {}
    names = dict(enumerate(task.labels))
    return {"num_labels": len(names), "id2label": names, "label2id": {name: index for index, name in names.items()}}


def _unloadable(source: str, local: bool, error: Exception) -> Exception:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if local:
        return InputError(f"--model {source}: cannot be loaded: {reason}")
    return MachineError(f"--model {source}: not a folder here, and the hub does not give it ({reason}); give a folder")


def _foreign_amax(folder: Path) -> dict[str, torch.Tensor]:
    """Scales in a checkpoint: `*_quantizer._amax`, with pytorch-quantization's leading underscore taken off."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                if match := re.fullmatch(r"(.+\.)_?(\w+_quantizer)\._amax", name):
                    found[match[1] + match[2]] = file.get_tensor(name).float()
    return found
