"""Loading models: safetensors only, without running code from the checkpoint."""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from optkit.core.errors import InputError, OptkitError
from optkit.core.json_door import read_json
from optkit.models import (
    checkpoint_tensors,
    class_order,
    config_door,
    families,
    missing_tensors,
    model_source,
    padding_check,
    scales,
    tensor_files,
    thresholds_file,
    tokenizers,
)
from optkit.tasks import registry
from optkit.tasks.base import Feed, Task, TaskKind

log = logging.getLogger(__name__)
RECIPE = "recipe.json"
"""File in a checkpoint with the stages that it has gone through."""
DEFAULT_MODEL = "google-bert/bert-base-uncased"


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
    thresholds: tuple[float, ...] = ()
    """Thresholds that it decides by, of tasks that fit some (see `optkit.tasks.deciding`)."""
    remarks: list[str] = field(default_factory=list)
    """What came of its stages that a reader of its results should know."""


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
            task, a head for another task, other classes, or the classes in another order, or logits that padding moves.
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
    families.take(bare)
    config_door.make_plain(bare)
    if task is not None:
        _check_head(bare, task)
    if task is not None and tokenizer is None:
        raise InputError(f"{type(model).__name__}: the task's texts need its tokenizer; give tokenizer=…, or load_model(…)")
    if tokenizer is not None:
        tokenizer = copy.deepcopy(tokenizer)  # the user's own stays as it is
        tokenizers.fit(tokenizer, bare, type(bare).__name__)
    kind = type(task) if task is not None else registry.task_of(model)
    if kind is not None:
        padding_check.check_config(bare.config, kind)
    return LoadedModel(model, cast(PreTrainedTokenizerBase, tokenizer), fine_tuned=True, task=kind)


def max_length(loaded: LoadedModel, task: Task) -> int:
    """Return the longest feature, in tokens, that task, tokenizer and model all accept."""
    return min(task.length(loaded.tokenizer), families.longest_input(loaded.model) or task.max_length)


def load(
    source: str | Path,
    task: Task,
    *,
    labels: Sequence[str] | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> LoadedModel:
    """Load a model for a task from the hub or a folder: safetensors only, without running code from the checkpoint.

        model = optkit.load_model("bert-base-uncased-finetuned/", task)
        model.model, model.tokenizer, model.fine_tuned

    A head whose classes stand in another order than the data's is sorted into it by their names, or by `labels`.

    Args:
        source: name on the Hugging Face hub, or folder saved by `save_pretrained`.
        task: task whose head the model gets; a missing head is initialised at random.
        labels: the data's classes in the order of the head's rows, where their names do not tell.
        revision: branch, tag or commit on the hub.
        local_files_only: take the hub's files from its cache alone.

    Returns:
        The model in float32 with its tokenizer.

    Raises:
        InputError: a folder without weights, config or tokenizer, a pickle, a file that cannot be read, tensors that are
            missing, of another shape or for nothing, a tokenizer that does not fit, a head with other classes than the task,
            or in an order that is not known, or logits that padding moves.
        MachineError: the hub cannot be reached.
    """
    found = model_source.find(source, revision, local_files_only)
    folder, name = found.folder, found.name
    with reading(f"--model {name}"):
        tokenizer, config, names = _described(found, task)
        padding_check.check_config(config, task)
        tensor_files.check(folder, name)
        with torch.device("meta"):
            config_door.check_size(task.auto_class().from_config(config, trust_remote_code=False), f"--model {name}")
        model, report = task.auto_class().from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # found below, and said in the task's words
        )
        families.take(model)
        extras = checkpoint_tensors.take(folder, model, report["unexpected_keys"], name)
    missing = set(report["missing_keys"]) - extras.weights
    complete = not any(missing_tensors.in_head(tensor, model, task) for tensor in missing)
    fine_tuned = complete and task.has_head(model.config)
    missing_tensors.check(name, model, missing, report["mismatched_keys"], fine_tuned, task)
    if complete and task.head_modules:
        missing_tensors.check_kind(config_door.read(folder), task, f"--model {name}")
    _fit(tokenizer, model, name)
    if labels is not None and not (task.labels and fine_tuned):
        raise InputError(f"--labels {','.join(labels)}: {name} has no head with classes yet, whose rows they would name")
    thresholds = thresholds_file.read(folder, max(1, len(task.labels))) if fine_tuned and task.fits_thresholds else ()
    if task.labels and fine_tuned:
        if labels is None:
            class_order.check_stated(folder / config_door.FILE)
        rows = class_order.order(names, task.labels, labels, f"--model {name}")
        thresholds = tuple(thresholds[row] for row in rows) if thresholds else ()
        class_order.permute(model, rows, f"--model {name}")
        class_order.name(model.config, class_order.served_names(names, rows, task.labels))
    _warn_of_stages(folder, name)
    if extras.amax and fine_tuned:
        scales.check(extras.amax, families.encoder_linears(model), name)
    if extras.amax:
        log.warning("%s: float weights, and scales of %d quantisers, which quantization takes", name, len(extras.amax))
    return LoadedModel(model, tokenizer, fine_tuned, extras.amax, extras.masks, type(task), thresholds)


def architecture(
    source: str | Path, task: Task, *, revision: str | None = None, local_files_only: bool = False
) -> LoadedModel:
    """Load a model as `load` does, but without weights: on the meta device.

    Raises:
        InputError: a folder without a configuration or a tokenizer, or a tokenizer that does not fit.
        MachineError: the hub cannot be reached.
    """
    found = model_source.find(source, revision, local_files_only)
    with reading(f"--model {found.name}"):
        tokenizer, config, _ = _described(found, task)
        with torch.device("meta"):
            loaded = new(config, tokenizer, task)
        config_door.check_size(loaded.model, f"--model {found.name}")
    _fit(tokenizer, loaded.model, found.name)
    return loaded


def new(config: Any, tokenizer: PreTrainedTokenizerBase, task: Task) -> LoadedModel:
    """Return a model with random weights (torch's global seed) for a task that defines its own architecture."""
    config.dtype = torch.float32  # whatever type the weights were stored in
    model = task.auto_class().from_config(config, trust_remote_code=False, dtype=torch.float32)
    families.prepare(model)
    return LoadedModel(model, tokenizer, task=type(task))


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what transformers and tokenizers raise, which is nearly everything, into an `InputError`.

    Args:
        name: begin of the message, such as `--model NAME`.
    """
    try:
        disable_progress_bar()
        set_verbosity_error()  # a missing head is reported by `fine_tuned`
        yield
    except OptkitError:
        raise
    except Exception as error:
        kind = [type(error).__name__] if isinstance(error, LookupError | TypeError | AttributeError) else []
        reason = ": ".join([*kind, *str(error).strip().splitlines()[:1]]) or type(error).__name__
        raise InputError(f"{name}: cannot be loaded: {reason:.500}") from error


def _described(found: model_source.Source, task: Task) -> tuple[PreTrainedTokenizerBase, Any, list[str]]:
    """Return tokenizer and configuration of a model, in float32 and with the task's classes, and its own classes' names."""
    checkpoint_tensors.check_adapter(found.folder, found.name)
    model_source.check(found)
    config = config_door.read(found.folder)
    checkpoint_tensors.check_config(config, found.name)
    tokenizer, names = tokenizers.load(found.folder, f"--model {found.name}"), class_order.names_of(config)
    config.dtype = torch.float32  # which is what the weights become, whatever they are stored in
    task.adopt(found.folder, config, tokenizer)
    class_order.name(config, task.class_names)
    config.update(dict(task.config))
    return tokenizer, config, names


def _warn_of_stages(folder: Path, name: str) -> None:
    """Warn that a checkpoint of a recipe is taken as a plain model."""
    stages = read_json(folder / RECIPE) if (folder / RECIPE).is_file() else None
    if isinstance(stages, list) and stages:
        done = ", ".join(str(stage["technique"]) for stage in stages if isinstance(stage, dict) and "technique" in stage)
        log.warning(
            "%s: a checkpoint after %s; its float weights are taken, without what these add to the model", name, done
        )


def _fit(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, name: str) -> None:
    """Make tokenizer and model agree on their inputs, both in place."""
    if tokenizers.takes_segments(model) and "token_type_ids" not in tokenizer.model_input_names:
        tokenizers.keep_first_segment(model, f"--model {name}")
    tokenizers.fit(tokenizer, model, f"--model {name}")


def inference(model: PreTrainedModel, task: TaskKind) -> Callable[[Feed], NDArray[Any]]:
    """Return a function from a feed to the task's float32 logits; moves the model to the GPU if there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    nn.Module.to(model, device).eval()

    @torch.inference_mode()
    def infer(feed: Feed) -> NDArray[Any]:
        output = model(**{name: torch.from_numpy(array).to(device) for name, array in feed.items()})
        return task.logits(output).float().cpu().numpy()

    return infer


def _check_head(model: PreTrainedModel, task: Task) -> None:
    """Raise `InputError` unless the head of a model in memory fits the task."""
    name, expected = type(model).__name__, task.auto_class().__name__.removeprefix("AutoModel")
    if not name.endswith(expected):
        raise InputError(f"{name}: found another head than the task's, expected a model …{expected}")
    missing_tensors.check_kind(model.config, task, name)
    task.check_head(model)
    if task.labels and model.config.num_labels != len(task.labels):
        raise InputError(
            f"{name}: its head has {model.config.num_labels} classes, the task has {len(task.labels)} "
            f"({', '.join(task.labels)})"
        )
    if task.labels and class_order.order(class_order.names_of(model.config), task.labels, None, name) != [
        *range(len(task.labels))
    ]:
        raise InputError(
            f"{name}: its head's classes are {', '.join(class_order.names_of(model.config))} (config.id2label), the task's "
            f"are {', '.join(task.labels)}; save it and let optkit.load_model sort them, or sort its rows and id2label so"
        )
