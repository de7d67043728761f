"""Loading models: safetensors only, without running code from the checkpoint."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from optkit.core.errors import InputError, MachineError
from optkit.models.families import longest_input
from optkit.tasks import registry
from optkit.tasks.base import Feed, Task, TaskKind

log = logging.getLogger(__name__)
DEFAULT_MODEL = "google-bert/bert-base-uncased"
_ASP_MASK = ".__weight_mma_mask"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


@dataclass
class LoadedModel:
    """A model with its tokenizer, and the scales and masks found in its checkpoint; returned by `load_model`.

        model = optkit.load_model("bert-base-uncased-finetuned/", task)
        model.model, model.tokenizer, model.fine_tuned

    Functions that take a model also take a bare `PreTrainedModel`.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    fine_tuned: bool = False
    """Whether the checkpoint has the task's head, so that no fine-tuning is needed."""
    amax: dict[str, torch.Tensor] = field(default_factory=dict)
    """Scales found in the checkpoint, `{quantiser's name: amax}`, as ModelOpt and pytorch-quantization store them."""
    masks: dict[str, torch.Tensor] = field(default_factory=dict)
    """2:4 masks found in the checkpoint, `{Linear's name: [out, in]}`, as apex ASP stores them."""
    task: type[Task] | None = None
    """Class of the task that the head is for."""


Model = PreTrainedModel | LoadedModel
"""A model as the public API takes it."""


def loaded_model(model: Model, task: Task | None = None, tokenizer: PreTrainedTokenizerBase | None = None) -> LoadedModel:
    """Wrap a model in memory as a `LoadedModel` after checking it. The model is not copied.

    Args:
        model: a `LoadedModel`, which is returned unchanged, or a `PreTrainedModel`.
        task: task that it is used for; by default that of its head.
        tokenizer: tokenizer of a bare model; required with a task.

    Raises:
        InputError: not a model, weights that are not float32, a bare model without its tokenizer or with a head of no known
            task, or a head for another task, for other classes, or for the classes in another order.
    """
    if task is not None and not isinstance(task, Task):
        raise InputError(f"task: found {task!r}, expected a task, as optkit.load_task gives it")
    bare = model.model if isinstance(model, LoadedModel) else model
    if not isinstance(bare, PreTrainedModel):
        raise InputError(
            f"model: found {bare!r:.80}, expected a PreTrainedModel, or what optkit.load_model(folder, task) gives"
        )
    other = sorted({str(one.dtype) for one in bare.parameters() if one.is_floating_point() and one.dtype != torch.float32})
    if other:
        raise InputError(f"{type(bare).__name__}: its weights are {', '.join(other)}, expected torch.float32; model.float()")
    if isinstance(model, LoadedModel):
        if task is not None and model.task is not None and model.task.head != task.head:
            raise InputError(f"{type(bare).__name__}: its head is for {model.task.head}, the task is {task.head}")
        return model
    if task is not None:
        _check_head(bare, task)
    if task is not None and tokenizer is None:
        raise InputError(f"{type(model).__name__}: the task's texts need its tokenizer; give tokenizer=…, or load_model(…)")
    kind = type(task) if task is not None else registry.task_of(model)
    return LoadedModel(model, cast(PreTrainedTokenizerBase, tokenizer), fine_tuned=True, task=kind)


def max_length(loaded: LoadedModel, task: Task) -> int:
    """Return the longest feature, in tokens, that task, tokenizer and model all accept."""
    return min(task.max_length, loaded.tokenizer.model_max_length, longest_input(loaded.model) or task.max_length)


def load(source: str | Path, task: Task) -> LoadedModel:
    """Load a model for a task from the hub or a folder: safetensors only, without running code from the checkpoint.

        model = optkit.load_model("bert-base-uncased-finetuned/", task)
        model.model, model.tokenizer, model.fine_tuned

    Args:
        source: name on the Hugging Face hub, or folder saved by `save_pretrained`.
        task: task whose head the model gets; a missing head is initialised at random.

    Returns:
        The model in float32 with its tokenizer.

    Raises:
        InputError: a folder without weights, config or tokenizer, a pickle, a file that cannot be read, tensors that are
            missing or of another shape, or a head with other classes than the task, or in another order.
        MachineError: the hub cannot be reached.
    """
    folder, source = Path(source).expanduser(), str(source)
    if folder.is_dir():
        _check_folder(folder)
        source = str(folder)
    elif source.startswith((".", "/", "~")):
        raise InputError(f"--model {source}: no such folder; expected one with config.json and model.safetensors")
    try:
        disable_progress_bar()
        set_verbosity_error()  # a missing head is reported by `fine_tuned`
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        classes = dict(config.id2label)
        config.update(_label_maps(task))
        model, report = task.auto_class().from_pretrained(
            source,
            config=config,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # found below, and said in the task's words
        )
    except Exception as error:  # transformers and tokenizers raise nearly everything, Exception itself too
        raise _unloadable(source, folder.is_dir(), error) from error
    if not tokenizer.is_fast:
        raise InputError(f"--model {source}: its tokenizer has no fast version; add a tokenizer.json to the folder")
    fine_tuned = not any(name.startswith(task.head_modules) for name in report["missing_keys"])
    _check_tensors(source, report, fine_tuned, task)
    if fine_tuned:
        _check_order(f"--model {source}", [str(classes.get(index)) for index in range(len(task.labels))], task)
    amax, masks = _foreign(folder) if folder.is_dir() else ({}, {})
    if amax:
        log.warning("%s: float weights, and scales of %d quantisers, which quantization takes", source, len(amax))
    return LoadedModel(model.float(), tokenizer, fine_tuned, amax, masks, type(task))


def architecture(source: str, task: Task) -> LoadedModel:
    """Load a model as `load` does, but without weights: on the meta device.

    Raises:
        InputError: a folder without a configuration or a tokenizer.
        MachineError: the hub cannot be reached.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        _check_folder(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        config.update(_label_maps(task))
        with torch.device("meta"):
            return new(config, tokenizer, task)
    except Exception as error:  # as `load`
        raise _unloadable(source, folder.is_dir(), error) from error


def new(config: Any, tokenizer: PreTrainedTokenizerBase, task: Task) -> LoadedModel:
    """Return a model with random weights (torch's global seed) for a task that defines its own architecture."""
    return LoadedModel(task.auto_class().from_config(config, trust_remote_code=False), tokenizer, task=type(task))


def inference(model: PreTrainedModel, task: TaskKind) -> Callable[[Feed], NDArray[Any]]:
    """Return a function from a feed to the task's float32 logits; moves the model to the GPU if there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    nn.Module.to(model, device).eval()

    @torch.inference_mode()
    def infer(feed: Feed) -> NDArray[Any]:
        output = model(**{name: torch.from_numpy(array).to(device) for name, array in feed.items()})
        return task.logits(output).float().cpu().numpy()

    return infer


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a folder's `model*.safetensors`, by name."""
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


def _check_tensors(source: str, report: Mapping[str, Any], fine_tuned: bool, task: Task) -> None:
    """Raise `InputError` if tensors other than a new head and its pooler are missing or of another shape."""
    for name, found, expected in report["mismatched_keys"]:
        if name.startswith(task.head_modules) and task.labels and found[0] != expected[0]:
            raise InputError(
                f"--model {source}: its head has {found[0]} classes, the task has {expected[0]} "
                f"({', '.join(task.labels)}); give the model that was fine-tuned for this task, or one without a head"
            )
        raise InputError(f"--model {source}: {name} has shape {list(found)}, config.json makes it {list(expected)}")
    new = () if fine_tuned else (*task.head_modules, "pooler.")
    missing = sorted(name for name in report["missing_keys"] if not any(f".{part}" in f".{name}" for part in new))
    if missing:
        raise InputError(
            f"--model {source}: {len(missing)} tensors are missing from its *.safetensors: {', '.join(missing[:5])}; "
            "expected all those of its encoder. Save it again with save_pretrained"
        )


def _check_head(model: PreTrainedModel, task: Task) -> None:
    """Raise `InputError` unless the head of a model in memory fits the task."""
    name, expected = type(model).__name__, task.auto_class().__name__.removeprefix("AutoModel")
    if not name.endswith(expected):
        raise InputError(f"{name}: found another head than the task's, expected a model …{expected}")
    if task.labels and model.config.num_labels != len(task.labels):
        raise InputError(
            f"{name}: its head has {model.config.num_labels} classes, the task has {len(task.labels)} "
            f"({', '.join(task.labels)})"
        )
    classes: dict[Any, Any] = dict(model.config.id2label or {})
    _check_order(name, [str(classes.get(index)) for index in range(len(task.labels))], task)


def _check_order(source: str, found: Sequence[str], task: Task) -> None:
    """Raise `InputError` if a head has the task's classes in another order, which would give answers the wrong names."""
    ours, theirs = [name.casefold() for name in task.labels], [name.casefold() for name in found]
    if ours != theirs and sorted(ours) == sorted(theirs):
        raise InputError(
            f"{source}: its head's classes are {', '.join(found)} (id2label in config.json), the task's are "
            f"{', '.join(task.labels)}; sort the rows of its classifier and id2label into the task's order"
        )


def _label_maps(task: Task) -> dict[str, Any]:
    names = dict(enumerate(task.class_names))
    return {"id2label": names, "label2id": {name: index for index, name in names.items()}}


def _unloadable(source: str, local: bool, error: Exception) -> Exception:
    lines = [type(error).__name__] if isinstance(error, LookupError | TypeError | AttributeError) else []
    reason = ": ".join([*lines, *str(error).strip().splitlines()[:1]]) or type(error).__name__
    if local:
        return InputError(f"--model {source}: cannot be loaded: {reason}")
    return MachineError(f"--model {source}: not a folder here, and the hub does not give it ({reason}); give a folder")


def _foreign(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Read scales and masks that other tools stored in a checkpoint.

    Returns:
        Scales, `*_quantizer._amax`, with pytorch-quantization's leading underscore taken off, and 2:4 masks, apex ASP's
        `__weight_mma_mask`, by the name of their Linear.
    """
    amax, masks = {}, {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                if match := re.fullmatch(r"(.+\.)_?(\w+_quantizer)\._amax", name):
                    amax[match[1] + match[2]] = file.get_tensor(name).float()
                elif name.endswith(_ASP_MASK):
                    masks[name.removesuffix(_ASP_MASK)] = file.get_tensor(name).bool()
    return amax, masks
