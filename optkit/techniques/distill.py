"""Distillation into a smaller student: make it, bring its representations close to the teacher's, then its answers."""

from optkit.losses import Loss, live, with_teacher
from optkit.models import Loaded
from optkit.stages import Distill
from optkit.techniques.augment import Neighbours
from optkit.techniques.context import Context
from optkit.techniques.representations import Representations, representation_loss
from optkit.techniques.retrain import retrain
from optkit.techniques.student import check_teacher, chosen_layers, student


def apply(loaded: Loaded, stage: Distill, context: Context) -> list[dict[str, float]]:
    """Replace a model by a student of its own layers and teach it in two phases.

    Returns:
        The history of both phases.

    Raises:
        InputError: the student cannot be made, or its teacher reads other tokens or is shallower than it.
        TrainingError: the loss is not finite.
    """
    stage.checked()
    loaded.model = student(loaded.model, stage.layers, stage.hidden_size)
    loaded.amax, loaded.masks = {}, {}  # they were made for other layers
    needs_teacher = stage.representation_epochs or stage.augment
    teacher = context.teacher_model(stage.teacher) if needs_teacher else None
    if teacher:
        check_teacher(loaded, teacher, stage.teacher)
    history = _follow_representations(loaded, teacher, stage, context) if teacher and stage.representation_epochs else []
    return history + _follow_answers(loaded, teacher, stage, context)


def _follow_representations(loaded: Loaded, teacher: Loaded, stage: Distill, context: Context) -> list[dict[str, float]]:
    depths = (teacher.model.config.num_hidden_layers, loaded.model.config.num_hidden_layers)
    heads = stage.relation_heads or teacher.model.config.num_attention_heads
    pair = Representations(
        loaded.model, teacher.model, chosen_layers(*depths), stage.hidden_weight, stage.relation_weight, heads
    )
    rate = stage.representation_learning_rate or 2 * (stage.learning_rate or context.training.learning_rate or 0)
    phase = stage.model_copy(update={"epochs": stage.representation_epochs, "learning_rate": rate})
    try:
        return retrain(
            pair, phase, context, "distilling representations", representation_loss, _augment(loaded, stage, context)
        )
    finally:
        pair.release()


def _follow_answers(loaded: Loaded, teacher: Loaded | None, stage: Distill, context: Context) -> list[dict[str, float]]:
    """By the teacher's stored logits, or by its own look at every batch where none comes twice."""
    loss: Loss | None = None
    if teacher and stage.augment:
        loss = with_teacher(live(teacher.model), stage.temperature, stage.label_weight)
    return retrain(loaded.model, stage, context, "distilling answers", loss, _augment(loaded, stage, context))


def _augment(loaded: Loaded, stage: Distill, context: Context) -> Neighbours | None:
    return Neighbours(loaded, stage.augment, context.seed) if stage.augment else None
