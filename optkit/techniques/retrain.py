"""Training a model again within a stage: its settings, its teacher, and whatever zeros the model already has."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn

from optkit import sparsity
from optkit.losses import Loss, stored, task_loss, with_teacher
from optkit.models import encoder_linears
from optkit.stages import Taught, Training
from optkit.techniques.context import Context
from optkit.training import Augment, Batches, train


def retrain(
    model: nn.Module,
    stage: Taught,
    context: Context,
    title: str,
    loss: Loss | None = None,
    augment: Augment | None = None,
) -> list[dict[str, float]]:
    """Train a model in place as its stage says; weights that are 2:4 stay so, checked after every epoch.

    Args:
        model: or a module that holds it.
        stage: says for how long, how fast, and beside which teacher.
        context: where features and teachers come from.
        title: of the progress bar.
        loss: None takes the labels', beside the stage's teacher where it has one.
        augment: changes the inputs of each batch.

    Returns:
        The training's history.

    Raises:
        TrainingError: the loss is not finite.
        GateError: a group of a sparse weight has lost its zeros.
    """
    settings = settings_of(stage, context.training)
    batches = Batches(context.features, context.collator, settings.batch_size, context.seed, augment)
    sparse = sparsity.sparse_linears(encoder_linears(model))
    loss = loss or _loss(stage, context)
    after_epoch = partial(sparsity.check, sparse, f"after an epoch of {title}")
    with sparsity.held(sparse), _dropout(model, stage.dropout):
        return train(model, batches, loss, settings, context.seed, context.logs, title, after_epoch)


def settings_of(stage: Taught, training: Training) -> Training:
    """The baseline's resolved settings with what the stage sets itself."""
    own = {"epochs": stage.epochs, "warmup_ratio": stage.warmup_ratio}
    if stage.learning_rate is not None:
        own["learning_rate"] = stage.learning_rate
    return training.model_copy(update=own)


def _loss(stage: Taught, context: Context) -> Loss:
    if not stage.teacher:
        return task_loss
    return with_teacher(stored(context.teacher_logits(stage.teacher)), stage.temperature, stage.label_weight)


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
