"""Compression of a model in memory, without a recipe or a folder of checkpoints.

    optkit.quantize_(model, optkit.Quantize(calibrator="mse"), calibration=batches)
    optkit.sparsify_(model, optkit.Sparsify(), task=task)
    student = optkit.distill(model, optkit.Distill(layers=6), task)

Functions whose name ends in `_` change the model in place. Each takes a `LoadedModel`, as `load_model` returns it, or a
`PreTrainedModel`.
"""

import copy
import inspect
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from optkit.compression import quantizers
from optkit.compression.context import Context
from optkit.compression.distill import Distill
from optkit.compression.quantize import Quantize
from optkit.compression.sparsify import Sparsify
from optkit.compression.student import check_teacher
from optkit.core import temporary
from optkit.core.errors import InputError
from optkit.models import families, two_to_four
from optkit.models.loading import LoadedModel, Model, inference, loaded_model
from optkit.recipe.stage import BASELINE, History, Taught
from optkit.recipe.training import Training
from optkit.tasks import unlabelled
from optkit.tasks.base import Feed, Task
from optkit.tasks.collate import BATCH_SIZE, Collator, run
from optkit.training import thresholds

log = logging.getLogger(__name__)
T = TypeVar("T", bound=Taught)
Batches = Iterable[Mapping[str, Any]]
"""Batches of model inputs: integer tensors or arrays [batch, sequence] by name; other names are ignored."""


def quantize_(
    model: Model,
    config: Quantize | None = None,
    *,
    calibration: Batches | None = None,
    task: Task | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    teacher: Model | None = None,
    seed: int = 0,
) -> History:
    """Insert INT8 fake quantisers into the encoder's Linear modules and calibrate them; train if there are epochs and
    a task.

    Symmetric INT8, weights per output channel, activations per tensor (Wu et al. 2020, arXiv 2004.09602). The result is
    still a PyTorch model: train it in your own loop (quantization-aware training), evaluate it, or export it.

        optkit.quantize_(model, optkit.Quantize(calibrator="mse", gelu_clip=10), calibration=batches)

    Args:
        model: float32 model, changed in place.
        config: calibrator, clip, epochs, …; the default is post-training quantization with the max calibrator.
        calibration: real inputs to calibrate on; by default examples of the task's training split.
        task: task with the data for calibration and training.
        tokenizer: tokenizer of the model; required for a bare `PreTrainedModel` with a task.
        teacher: teacher of the training; by default a copy of the unquantised model.
        seed: seed of the examples drawn and of the training.

    Returns:
        Training history, empty without training.

    Raises:
        InputError: the settings have mistakes, there is nothing to calibrate on, the model has nothing to quantise, or an
            activation is not finite.
    """
    loaded, config = loaded_model(model, task, tokenizer), _settings(config, Quantize)
    if calibration is not None:
        loaded = replace(loaded, amax={})  # what is given counts, not the scales that came with the checkpoint
    if calibration is None and task is None and not loaded.amax:
        raise InputError(
            "quantize_: found nothing to calibrate on; expected calibration=batches, {input: [batch, sequence]} each, or "
            "task=… with training data"
        )
    return _apply(loaded, config, calibration, task, teacher, seed)


def sparsify_(
    model: Model,
    config: Sparsify | None = None,
    *,
    calibration: Batches | None = None,
    task: Task | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    teacher: Model | None = None,
    seed: int = 0,
) -> History:
    """Prune the encoder's Linear modules to 2:4; with a task, train again with the mask fixed (Mishra et al. 2021, arXiv
    2104.08378).

    Without a task nothing is trained, which costs accuracy: train the model in your own loop within `keep_sparse`.

        optkit.sparsify_(model, optkit.Sparsify(epochs=1), task=task)

    Args:
        model: float32 model, changed in place.
        config: criterion, epochs, …
        calibration: real inputs for the criterion `sparsegpt`; by default examples of the task's training split.
        task, tokenizer, teacher, seed: the same as for `quantize_`.

    Returns:
        Training history, empty without training.

    Raises:
        InputError: the settings have mistakes, or no Linear module has a shape that can be 2:4.
        GateError: a group of four has lost its zeros.
    """
    settings = _settings(config, Sparsify)
    return _apply(loaded_model(model, task, tokenizer), settings, calibration, task, teacher, seed)


def distill(
    model: Model,
    config: Distill,
    task: Task,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    teacher: Model | None = None,
    seed: int = 0,
) -> LoadedModel:
    """Create a smaller student from a model's layers and distil into it: hidden states and attention relations first, then
    logits (Jiao et al. 2020, arXiv 1909.10351; Wang et al. 2021, arXiv 2012.15828; Hinton et al. 2015, arXiv 1503.02531).

        student = optkit.distill(model, optkit.Distill(layers=6), task)

    Args:
        model: model that the student is initialised from; not changed.
        config: layers, hidden size, epochs, …
        task: task with the training data.
        tokenizer, seed: the same as for `quantize_`.
        teacher: teacher of the training; by default a copy of the model.

    Returns:
        The trained student with the model's tokenizer.

    Raises:
        InputError: the settings have mistakes, or the student would be larger than its teacher.
    """
    student = copy.copy(loaded_model(model, task, tokenizer))
    _apply(student, _settings(config, Distill), None, task, teacher, seed)
    return student


@contextmanager
def keep_sparse(model: Model) -> Iterator[None]:
    """Keep the zeros of 2:4 weights at zero while your own loop trains the model, by masking their gradients.

        with optkit.keep_sparse(model):
            trainer.train()

    Args:
        model: model with 2:4 weights, as `sparsify_` leaves it.

    Raises:
        InputError: the model has no 2:4 weights.
        GateError: a group of four has lost its zeros, as with an optimiser that updates weights without gradients.
    """
    module = loaded_model(model).model
    sparse = two_to_four.sparse_linears(families.encoder_linears(module))
    if not sparse:
        raise InputError(
            f"keep_sparse: found no 2:4 weights in {type(module).__name__}; optkit.sparsify_(model) comes before"
        )
    with two_to_four.held(sparse):
        yield
    two_to_four.check(sparse, "after training within keep_sparse")


def _settings(config: Any, kind: type[T]) -> T:
    """Return the settings given, or the defaults for None."""
    config = kind.model_validate({}) if config is None else config
    if not isinstance(config, kind):
        raise InputError(f"config: found {config!r}, expected optkit.{kind.__name__}(…)")
    return config


def _apply(
    loaded: LoadedModel, stage: Taught, calibration: Batches | None, task: Task | None, teacher: Model | None, seed: int
) -> History:
    """Apply a stage as a recipe would; without a task, warn that nothing is trained."""
    stage = stage.checked()
    if quantizers.quantisers(loaded.model):
        raise InputError(
            f"{stage.technique}: found fake quantisers in the model, expected a float one; distil first, then sparsify, "
            "then quantise. Load it again"
        )
    if teacher is None and stage.teacher not in (None, BASELINE):
        raise InputError(
            f"{stage.technique}: found teacher={stage.teacher!r} in its settings; expected teacher=model beside them"
        )
    if task is None and (stage.answers or stage.follows):
        log.warning(
            "%s: nothing is trained, as there is no task; give task=… or train the model yourself", type(stage).__name__
        )
        stage = stage.model_copy(update={"epochs": 0, "steps": 0, "representation_epochs": 0, "representation_steps": 0})
    taught = None if teacher is None else loaded_model(teacher, task, loaded.tokenizer)
    if stage.teachers and taught is None:
        taught = LoadedModel(copy.deepcopy(loaded.model), loaded.tokenizer, task=loaded.task)
    elif taught is not None and stage.teachers:
        check_teacher(loaded, taught, "given", stage, task)
    with temporary.folder("optkit-training") as logs:
        context = _context(loaded, calibration, task, taught, seed, logs)
        history = stage.apply(loaded, context)
    stage.check(loaded.model, f"after {stage.technique}")
    loaded.model.eval()
    if task is not None:
        thresholds.fit(loaded, task, context.features, context.collator)
    return history


def _context(
    loaded: LoadedModel, calibration: Batches | None, task: Task | None, teacher: LoadedModel | None, seed: int, logs: Path
) -> Context:
    """Return the context that a recipe would pass to the stage, without a folder of checkpoints."""
    feeds = None if calibration is None else _feeds(loaded, calibration)
    if task is None:
        kind = cast(type[Task], loaded.task)
        return Context(kind, None, None, Training(), seed, logs, _nobody, _nobody, calibration=feeds)  # type: ignore[arg-type]
    features, collator = task.encode("train", loaded.tokenizer), Collator.of(task, loaded.tokenizer)
    more = unlabelled.encode(task, loaded.tokenizer)

    def answers(name: str) -> Sequence[NDArray[Any]]:
        own = taught(name)
        alike = own.tokenizer is loaded.tokenizer
        both = (features, more) if alike else (task.encode("train", own.tokenizer), unlabelled.encode(task, own.tokenizer))
        infer, pads = inference(own.model, task), Collator.of(task, own.tokenizer)
        return [row for part in both if part is not None for row in run(infer, part, BATCH_SIZE, pads)]

    def taught(name: str) -> LoadedModel:
        return teacher if teacher is not None else _nobody(name)

    training = Training().for_task(dict(task.training))
    return Context(task, features, collator, training, seed, logs, answers, taught, None, feeds, more)


def _nobody(name: str) -> Any:
    raise InputError(f"teacher {name!r}: there is none; give teacher=…")


def _feeds(loaded: LoadedModel, calibration: Batches) -> list[Feed]:
    """Return the model inputs of each batch, checked before the model is changed."""
    if isinstance(calibration, Mapping | str | torch.Tensor):
        raise InputError("calibration: found one batch, expected several: calibration=[batch]")
    feeds = [_feed(loaded, batch) for batch in calibration]
    if not feeds:
        raise InputError("calibration: found no batch, expected one or more (a generator can be read only once)")
    return feeds


def _feed(loaded: LoadedModel, batch: Mapping[str, Any]) -> Feed:
    """Return the model inputs of a batch, int64 [batch, sequence]."""
    if not isinstance(batch, Mapping):
        raise InputError(
            f"calibration: found a batch that is a {type(batch).__name__}, expected {{input: [batch, sequence]}}"
        )
    names = [name for name in inspect.signature(loaded.model.forward).parameters if name in batch and name != "labels"]
    if "input_ids" not in names:
        raise InputError(f"calibration: found a batch with {', '.join(batch) or 'nothing'}, expected input_ids and the like")
    feed = {name: _integers(name, batch[name]) for name in names}
    rows, words = feed["input_ids"], len(cast(torch.Tensor, loaded.model.get_input_embeddings().weight))
    longest = families.longest_input(loaded.model) or rows.shape[1]
    if rows.shape[1] > longest:
        raise InputError(f"calibration: found input_ids of {rows.shape[1]} tokens, the model has positions for {longest}")
    if rows.size and not (rows.min() >= 0 and rows.max() < words):
        raise InputError(f"calibration: found input_ids from {rows.min()} to {rows.max()}, the model knows 0 to {words - 1}")
    return feed


def _integers(name: str, given: Any) -> NDArray[Any]:
    """Convert an input to int64 [batch, sequence]."""
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise InputError(f"calibration: {name} has rows of different lengths, expected one length; pad them") from error
    if array.ndim != 2 or array.dtype.kind not in "iub":
        raise InputError(
            f"calibration: found {name} {list(array.shape)} of {array.dtype}, expected integers [batch, sequence]"
        )
    return array.astype(np.int64)
