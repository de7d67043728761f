"""Training a model again within a stage: beside its teacher, in one phase or two, with its zeros and shared blocks held.

First, where asked for, its representations follow the teacher's: hidden states layer by layer (Jiao et al. 2020, arXiv
1909.10351) and the last layer's relations among queries, keys and values (Wang et al. 2021, arXiv 2012.15828). Then its
answers do: the teacher's softened logits beside the labels (Hinton et al. 2015, arXiv 1503.02531), or what the task has in
their place (`Task.teaching_loss`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

from optkit.compression import rate_choice
from optkit.compression.augment import Neighbours
from optkit.compression.context import Context
from optkit.compression.representations import Representations, representation_loss
from optkit.compression.student import check_teacher, chosen_layers
from optkit.core.errors import InputError
from optkit.models import shared_blocks, two_to_four
from optkit.models.families import depth, encoder_linears, heads
from optkit.models.loading import LoadedModel
from optkit.recipe.stage import History, Stage, Taught
from optkit.recipe.training import Training
from optkit.tasks.base import Task, TaskKind
from optkit.training.loop import train
from optkit.training.losses import Loss, averaged, live, stored, task_loss, with_teacher


def retrain(loaded: LoadedModel, stage: Taught, context: Context, title: str) -> History:
    """Train a model in place as its stage says; weights that are 2:4 stay so, checked after every epoch, and shared blocks
    stay shared.

    Args:
        loaded: the model.
        stage: says for how long, how fast, and beside which teacher.
        context: where features and teachers come from.
        title: of the progress bar.

    Returns:
        The training's history, empty where the stage has no epochs.

    Raises:
        InputError: the teacher reads other tokens, or is shallower.
        TrainingError: the loss is not finite.
        GateError: a group of a sparse weight has lost its zeros.
    """
    check_labels(stage, context.task)
    teachers = _live_teachers(loaded, stage, context)
    history = []
    if stage.follows:
        history += _follow_representations(loaded, teachers[0], stage, context, title)
    if stage.answers and stage.learning_rates:
        run, loss = partial(_run, loaded, loaded.model), partial(answers_loss, teachers, stage)
        history += rate_choice.train_with_best(loaded, stage, context, title, loss, run)
    elif stage.answers:
        history += _run(loaded, loaded.model, title, answers_loss(teachers, stage, context), stage, context)
    return history


def check_labels(stage: Taught, task: TaskKind) -> None:
    """Raise `InputError` where a stage trains on labels that there are not."""
    if not (isinstance(task, Task) and stage.answers):
        return
    if not task.labelled and not stage.teachers:
        raise InputError(f"{stage.technique}: the train split has no labels to train by; name a teacher")
    if task.unlabelled and stage.teachers and stage.label_weight:
        raise InputError(
            f"{stage.technique}: label_weight is {stage.label_weight:g}, and --unlabelled brings texts without labels; set "
            "it to 0, or leave --unlabelled out"
        )


def check_teaching(loaded: LoadedModel, teacher: LoadedModel, name: str, stage: Stage, task: TaskKind | None) -> None:
    """Raise `InputError` where a teacher cannot teach a model in a stage, or its representations cannot be followed.

    Args:
        loaded: the model; its weights are not looked at and may be on the meta device.
        teacher: its teacher, likewise.
        name: of the teacher.
        stage: that trains.
        task: that is taught; without one, any.
    """
    check_teacher(loaded, teacher, name, stage, task)
    if isinstance(stage, Taught) and stage.follows and name == stage.teachers[0]:
        _pair(loaded, teacher, stage).release()


def check_together(configs: Mapping[str, Any], stage: Stage, task: TaskKind | None) -> None:
    """Raise `InputError` where the answers of several teachers cannot be averaged.

    Args:
        configs: configurations of the teachers' models, by name.
        stage: that they teach in.
        task: that is taught; without one, any.
    """
    sizes = {name: task.dimensions(config) for name, config in configs.items()} if task is not None else {}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{name!r} of {size}" for name, size in sizes.items())
        raise InputError(
            f"{stage.technique}: the vectors of its teachers have different dimensions ({found}), and cannot be averaged; "
            "name one of them, or teachers of one size"
        )


def settings_of(stage: Taught, training: Training) -> Training:
    """The baseline's resolved settings with what the stage sets itself."""
    own = {name: getattr(stage, name) for name in ("epochs", "steps", "warmup_ratio", "schedule", "ema")}
    if stage.learning_rate is not None:
        own["learning_rate"] = stage.learning_rate
    return training.model_copy(update=own)


def _live_teachers(loaded: LoadedModel, stage: Taught, context: Context) -> list[LoadedModel]:
    """Load the teachers that look at each batch themselves: all where words are replaced, else the one to follow."""
    whole = bool(stage.answers and stage.augment)
    names = stage.teachers if whole else stage.teachers[:1] if stage.follows else ()
    teachers = [context.teacher_model(name) for name in names]
    for name, teacher in zip(names, teachers, strict=True):
        check_teacher(loaded, teacher, name, stage, context.task)
    return teachers


def _follow_representations(
    loaded: LoadedModel, teacher: LoadedModel, stage: Taught, context: Context, title: str
) -> History:
    pair = _pair(loaded, teacher, stage)
    own = {
        "epochs": stage.representation_epochs,
        "steps": stage.representation_steps,
        "learning_rate": stage.representation_learning_rate,
    }
    phase = stage.model_copy(update=own)
    try:
        return _run(loaded, pair, f"{title}: representations", representation_loss, phase, context)
    finally:
        pair.release()


def _pair(loaded: LoadedModel, teacher: LoadedModel, stage: Taught) -> Representations:
    layers = chosen_layers(depth(teacher.model.config), depth(loaded.model.config))
    count = stage.relation_heads or heads(teacher.model.config)
    weights = stage.hidden_weight, stage.relation_weight
    return Representations(loaded.model, teacher.model, layers, *weights, count, teacher.tokenizer.model_input_names)


def answers_loss(teachers: Sequence[LoadedModel], stage: Taught, context: Context) -> Loss:
    """Return the training loss: the task's alone, or with the mean of the teachers' answers, computed per batch if words are
    replaced."""
    task = context.task
    if not stage.teachers:
        return task_loss(task)
    if stage.augment:
        answers = [live(teacher.model, task, teacher.tokenizer.model_input_names) for teacher in teachers]
    else:
        answers = [stored(context.teacher_logits(name), task) for name in stage.teachers]
    return with_teacher(task, averaged(answers, task), stage.temperature, stage.label_weight if task.labelled else 0.0)


def _run(loaded: LoadedModel, module: nn.Module, title: str, loss: Loss, stage: Taught, context: Context) -> History:
    """One phase: the model itself, or the module that holds it."""
    settings = settings_of(stage, context.training)
    augment = Neighbours(loaded, stage.augment) if stage.augment else None
    batches = context.batches(settings.batch_size, augment, taught=bool(stage.teachers))
    sparse = two_to_four.sparse_linears(encoder_linears(loaded.model))
    after_epoch = partial(two_to_four.check, sparse, f"after an epoch of {title}")
    with two_to_four.held(sparse), shared_blocks.held(loaded.model), _dropout(loaded.model, stage.dropout):
        return train(module, batches, loss, settings, context.seed, context.logs, title, after_epoch, context.snapshots)


@contextmanager
def _dropout(model: nn.Module, probability: float | None) -> Iterator[None]:
    """The model's dropout set to a probability, its own again afterwards; None changes nothing."""
    before = {module: module.p for module in model.modules() if isinstance(module, nn.Dropout)}
    for module in before if probability is not None else ():
        module.p = float(probability or 0)
    try:
        yield
    finally:
        for module, own in before.items():
            module.p = own
