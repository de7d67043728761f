"""Distillation into a smaller student: make it of its own teacher's layers, then train it beside the teacher."""

from optkit.compression.context import Context
from optkit.compression.retrain import retrain
from optkit.compression.student import student
from optkit.models.loading import Loaded
from optkit.recipe.stages import Distill


def apply(loaded: Loaded, stage: Distill, context: Context) -> list[dict[str, float]]:
    """Replace a model by a student made of its layers, and teach it.

    Returns:
        The history of both phases.

    Raises:
        InputError: the student cannot be made, or its teacher reads other tokens or is shallower than it.
        TrainingError: the loss is not finite.
    """
    stage.checked()
    loaded.model = student(loaded.model, stage.layers, stage.hidden_size)
    loaded.amax, loaded.masks = {}, {}  # they were made for other layers
    return retrain(loaded, stage, context, "distillation")
