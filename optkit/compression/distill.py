"""Distillation into a smaller student, which is initialised from the teacher's layers and trained against the teacher."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from optkit.recipe.stage import BASELINE, History, Taught
from optkit.recipe.teacher_names import one_or_several

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from optkit.compression.context import Context
    from optkit.models.loading import LoadedModel


class Distill(Taught):
    """Distillation: a smaller student, initialised from evenly spaced layers of the model and trained in two phases.

    The first phase matches hidden states and attention relations, the second the teacher's logits. Without epochs of either
    a later stage trains the student, as `Sparsify` from its first step on.

        optkit.Recipe(name="distill_6l", stages=[optkit.Distill(layers=6)])
    """

    technique: Literal["distill"] = "distill"
    order: ClassVar[int] = 10
    layers: int | None = Field(None, ge=1)
    """Number of the student's layers; None keeps the model's."""
    hidden_size: int | None = Field(None, ge=1)
    """Hidden size of the student; None keeps the model's. A narrower student matches hidden states through a learned
    projection."""
    teacher: Annotated[str | tuple[str, ...], BeforeValidator(one_or_several)] = BASELINE
    representation_epochs: float = Field(3, ge=0)

    @property
    def needs_training(self) -> bool:
        """Whether the student is only made: layers that do not fit together yet."""
        return not self.trains

    def preflight(self, model: "PreTrainedModel", recipe: str) -> "PreTrainedModel":
        """Return the untrained student.

        Raises:
            InputError: no student of this size can be made from the model.
        """
        from optkit.compression.student import student

        return student(model, self.layers, self.hidden_size)

    def apply(self, loaded: "LoadedModel", context: "Context") -> History:
        """Replace the model by a student made of its layers, and train the student.

        Returns:
            Training history of both phases.

        Raises:
            InputError: the student cannot be made, or its teacher reads other tokens or is shallower than it.
            TrainingError: the loss is not finite.
        """
        from optkit.compression.retrain import retrain
        from optkit.compression.student import student

        self.checked()
        loaded.model = student(loaded.model, self.layers, self.hidden_size)
        loaded.amax, loaded.masks = {}, {}  # they were made for other layers
        return retrain(loaded, self, context, "distillation")
