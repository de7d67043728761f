"""Compression of a model in memory, without a recipe or a folder of checkpoints.

    optkit.quantize_(model, optkit.Quantize(calibrator="mse"), calibration=batches)
    optkit.sparsify_(model, optkit.Sparsify(), task=task)
    student = optkit.distill(model, optkit.Distill(layers=6), task)

Functions whose name ends in `_` change the model in place. Each takes a `LoadedModel`, as `load_model` returns it, or a
`PreTrainedModel`.
"""

import copy
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from optkit.compression import quantizers
from optkit.compression.context import WANTED, Context
from optkit.compression.distill import Distill
from optkit.compression.given_feeds import Batches, feeds_of
from optkit.compression.quantize import Quantize
from optkit.compression.retrain import check_together
from optkit.compression.sparsify import Sparsify
from optkit.compression.student import check_teacher
from optkit.core import temporary
from optkit.core.errors import InputError
from optkit.models import families, two_to_four
from optkit.models.loading import LoadedModel, Model, inference, loaded_model
from optkit.recipe.stage import BASELINE, History, Taught
from optkit.recipe.training import Training
from optkit.tasks import unlabelled
from optkit.tasks.base import Task
from optkit.tasks.collate import BATCH_SIZE, Collator, run
from optkit.training import thresholds

log = logging.getLogger(__name__)
T = TypeVar("T", bound=Taught)


def quantize_(
    model: Model,
    config: Quantize | None = None,
    *,
    calibration: Batches | None = None,
    task: Task | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    teacher: Model | Sequence[Model] | None = None,
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
        teacher: teacher of the training, or several whose logits are averaged; by default a copy of the unquantised
            model.
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
        raise InputError(f"quantize_: found nothing to calibrate on; {WANTED}")
    return _apply(loaded, config, calibration, task, teacher, seed)


def sparsify_(
    model: Model,
    config: Sparsify | None = None,
    *,
    calibration: Batches | None = None,
    task: Task | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    teacher: Model | Sequence[Model] | None = None,
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
        InputError: the settings have mistakes, no Linear module has a shape that can be 2:4, or SparseGPT has nothing to
            read.
        GateError: a group of four has lost its zeros.
    """
    loaded, settings = loaded_model(model, task, tokenizer), _settings(config, Sparsify)
    if settings.criterion == "sparsegpt" and calibration is None and task is None and not loaded.masks:
        raise InputError(
            f'sparsify_: found nothing that SparseGPT could read; {WANTED}. Without either: Sparsify(criterion="magnitude")'
        )
    return _apply(loaded, settings, calibration, task, teacher, seed)


def distill(
    model: Model,
    config: Distill,
    task: Task,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    teacher: Model | Sequence[Model] | None = None,
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
        teacher: the same as for `quantize_`; by default a copy of the model.

    Returns:
        The trained student with the model's tokenizer.

    Raises:
        InputError: the settings have mistakes, there is no task, or the student would be larger than its teacher.
    """
    if task is None:
        raise InputError("distill: found no task; expected the one whose training data the student learns from")
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
    loaded: LoadedModel,
    stage: Taught,
    calibration: Batches | None,
    task: Task | None,
    teacher: Model | Sequence[Model] | None,
    seed: int,
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
    if task is None and stage.trains:
        log.warning(
            "%s: nothing is trained, as there is no task; give task=… or train the model yourself", type(stage).__name__
        )
        stage = stage.model_copy(update={"epochs": 0, "steps": 0, "representation_epochs": 0, "representation_steps": 0})
    teachers = _teachers(loaded, teacher, task) if stage.teachers else {}
    if teachers and teacher is not None:
        stage = stage.model_copy(update={"teacher": tuple(teachers)})
        for name, model in teachers.items():
            check_teacher(loaded, model, name, stage, task)
        check_together({name: model.model.config for name, model in teachers.items()}, stage, task)
    with temporary.folder("optkit-training") as logs:
        context = _context(loaded, calibration, task, teachers, seed, logs)
        history = stage.apply(loaded, context)
    stage.check(loaded.model, f"after {stage.technique}")
    loaded.model.eval()
    if task is not None:
        thresholds.fit(loaded, task, context.features, context.collator)
    return history


def _teachers(loaded: LoadedModel, given: Model | Sequence[Model] | None, task: Task | None) -> dict[str, LoadedModel]:
    """Return the teachers by name: those that were given, or the model; what is changed in place teaches as a copy."""
    if given is None:
        return {BASELINE: _apart(loaded, loaded)}
    if isinstance(given, str):
        raise InputError(f"teacher: found {given!r}, expected a model, as optkit.load_model(folder, task) gives it")
    models = given if isinstance(given, Sequence) else [given]
    if not models:
        raise InputError("teacher: found an empty list, expected a model, or several")
    names = ["given"] if len(models) == 1 else [f"given, {number}" for number in range(1, len(models) + 1)]
    found = [loaded_model(model, task, loaded.tokenizer) for model in models]
    for several in (count for count in Counter(id(own.model) for own in found).values() if count > 1):
        loaded.remarks.append(f"one of the teachers was given {several} times, and counts as often in the average")
        log.warning("%s", loaded.remarks[-1])
    return {name: _apart(own, loaded) for name, own in zip(names, found, strict=True)}


def _apart(teacher: LoadedModel, student: LoadedModel) -> LoadedModel:
    """Return the teacher, as a copy where it has parameters of the student, which its training would change."""
    own = {id(parameter) for parameter in student.model.parameters()}
    if own.isdisjoint(map(id, teacher.model.parameters())):
        return teacher
    return LoadedModel(copy.deepcopy(teacher.model), teacher.tokenizer, task=teacher.task)


def _context(
    loaded: LoadedModel,
    calibration: Batches | None,
    task: Task | None,
    teachers: Mapping[str, LoadedModel],
    seed: int,
    logs: Path,
) -> Context:
    """Return the context that a recipe would pass to the stage, without a folder of checkpoints."""
    feeds = None if calibration is None else feeds_of(loaded, calibration)
    if task is None:
        kind = cast(type[Task], loaded.task)
        return Context(kind, None, None, Training(), seed, logs, _nobody, _nobody, calibration=feeds)  # type: ignore[arg-type]
    features, collator = task.encode("train", loaded.tokenizer), Collator.of(task, loaded.tokenizer)
    more = unlabelled.encode(task, loaded.tokenizer)

    def answers(name: str) -> Sequence[NDArray[Any]]:
        own = teachers[name]
        alike = own.tokenizer is loaded.tokenizer
        both = (features, more) if alike else (task.encode("train", own.tokenizer), unlabelled.encode(task, own.tokenizer))
        infer, pads = inference(own.model, task), Collator.of(task, own.tokenizer)
        return [row for part in both if part is not None for row in run(infer, part, BATCH_SIZE, pads)]

    training = Training().for_task(dict(task.training))
    return Context(task, features, collator, training, seed, logs, answers, teachers.__getitem__, None, feeds, more)


def _nobody(name: str) -> Any:
    raise InputError(f"teacher {name!r}: there is none; give teacher=…")
