"""Distillation into a smaller student: make it of its own teacher's layers, then train it beside the teacher."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from optkit.recipe.stage import BASELINE, History, Taught

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from optkit.compression.context import Context
    from optkit.models.loading import LoadedModel


class Distill(Taught):
    """A smaller student, begun from evenly spaced layers of the model and taught in two phases."""

    technique: Literal["distill"] = "distill"
    order: ClassVar[int] = 10
    layers: int | None = Field(None, ge=1)
    """Layers of the student; None keeps the depth."""
    hidden_size: int | None = Field(None, ge=1)
    """Width of the student; None keeps it. A narrower student matches hidden states through a projection."""
    teacher: str = BASELINE
    epochs: float = Field(1, gt=0)
    representation_epochs: float = Field(3, ge=0)

    def preflight(self, model: "PreTrainedModel", recipe: str) -> "PreTrainedModel":
        """The student, untaught.

        Raises:
            InputError: it cannot be made.
        """
        from optkit.compression.student import student

        return student(model, self.layers, self.hidden_size)

    def apply(self, loaded: "LoadedModel", context: "Context") -> History:
        """Replace a model by a student made of its layers, and teach it.

        Returns:
            The history of both phases.

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
