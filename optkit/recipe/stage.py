"""A stage: what one technique does to a model, its settings and its behaviour together.

A technique is one module with one class:

    class Clip(Stage):
        technique: Literal["clip"] = "clip"
        order: ClassVar[int] = 15
        bound: float = Field(1.0, gt=0)

        def apply(self, loaded: "LoadedModel", context: "Context") -> History: ...

Its name is made known in `optkit.compression.registry`, or by an entry point of its package. torch, and whatever brings it,
is imported within the methods: `optkit compare` looks up the order of the stages and does not wait for it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from inspect import isabstract
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from optkit.core.plugins import Registry
from optkit.core.settings import Settings

if TYPE_CHECKING:  # later rooms, and what takes long to import
    import torch
    from transformers import PreTrainedModel

    from optkit.compression.context import Context
    from optkit.engines.select import Conversion
    from optkit.graph.audit import Audit
    from optkit.models.loading import LoadedModel

_ELSEWHERE: Registry[type["Stage"]] = Registry("technique", "optkit.techniques", {})
"""What other packages bring; `optkit.compression.registry`, a later room, knows optkit's own too."""
BASELINE = "baseline_fp32"
History = list[dict[str, float]]
"""What a training logs: step, epoch, loss and learning rate."""


class Stage(Settings, ABC):
    """Frozen settings of one stage, and the calls by which a recipe is carried out. Only `apply` has to be written."""

    technique: str
    """Its name, as a `Literal` with itself as the default: what `recipe.json` holds."""
    order: ClassVar[int]
    """Stages stand in rising order (distill 10, sparsify 20, quantize 30): each would undo what a later one has fixed."""
    quantises: ClassVar[bool] = False
    """Whether the graph has quantisers afterwards, from which engines in INT8 are built."""
    sparsity: ClassVar[str | None] = None
    """The pattern that the weights have afterwards, as "2:4"."""

    @property
    def teachers(self) -> tuple[str, ...]:
        """Names of recipes, and folders of models, that teach it."""
        return ()

    def preflight(self, model: "PreTrainedModel", recipe: str) -> "PreTrainedModel":
        """Find what cannot work before any training is paid for; warn of what can in part only.

        Args:
            model: what the stage starts from, which may be on the meta device; stays as it is.
            recipe: its name, for warnings.

        Returns:
            The model as the stage will leave it.

        Raises:
            InputError: it cannot work on this model.
        """
        return model

    @abstractmethod
    def apply(self, loaded: "LoadedModel", context: "Context") -> History:
        """Do to a model, in place, what the settings say.

        Returns:
            The training's history, empty where nothing is trained.
        """

    def restore(self, model: "PreTrainedModel", tensors: dict[str, "torch.Tensor"]) -> None:
        """Give a fresh model what the stage has added to it, so that a checkpoint's tensors have their places.

        Args:
            model: made from the checkpoint's configuration, with random weights.
            tensors: the checkpoint's by name, loaded into the model afterwards.
        """

    def check(self, model: "PreTrainedModel", when: str) -> None:
        """Raise where what the stage has reached does not hold: after it, after every later one, and in a checkpoint.

        Args:
            model: to look at.
            when: for the message, as "after quantize".
        """

    def check_graph(self, audit: "Audit", model: "PreTrainedModel") -> None:
        """Raise where it does not hold in the ONNX graph of the model."""

    def check_engines(self, conversion: "Conversion", model: "PreTrainedModel") -> None:
        """Raise where it does not hold in the engines built from that graph."""


class Taught(Stage):
    """What every stage has that trains: for how long, how fast, and beside which teacher (see `compression.retrain`)."""

    epochs: float = Field(1, ge=0)
    """Epochs of training on the task, beside the teacher's answers."""
    learning_rate: float | None = Field(None, gt=0)
    """None takes that of the baseline's training, which suits model and task."""
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    dropout: float | None = Field(0.0, ge=0, lt=1)
    """While it trains. A teacher regularises enough, and noise keeps a student from its answers; None leaves the model's
    own, for training on labels alone."""
    teacher: str | None = BASELINE
    """Recipe that teaches, or the folder of a fine-tuned model (a name with a slash in it); None trains on the labels
    alone."""
    temperature: float = Field(2.0, gt=0)
    label_weight: float = Field(0.1, ge=0, le=1)
    """Weight of the labels' cross-entropy beside the teacher's logits."""
    representation_epochs: float = Field(0, ge=0)
    """Epochs of a phase before, in which hidden states and attention relations follow the teacher's; 0 leaves it out."""
    representation_learning_rate: float = Field(3e-4, gt=0)
    """Learning rate of that phase; higher than of the second, as each layer is told its target."""
    hidden_weight: float = Field(1.0, ge=0)
    relation_weight: float = Field(1.0, ge=0)
    relation_heads: int | None = Field(None, ge=1)
    """Into how many heads both models' queries, keys and values are cut; None takes the teacher's attention heads."""
    augment: float = Field(0.0, ge=0, lt=1)
    """Share of the words replaced by neighbours in the model's own embedding, anew in every epoch; 0 changes nothing."""

    @property
    def teachers(self) -> tuple[str, ...]:
        """Whoever teaches: nobody where nothing is trained."""
        return (self.teacher,) if self.teacher and (self.epochs or self.representation_epochs) else ()

    @model_validator(mode="after")
    def _has_what_it_follows(self) -> Self:
        if self.teacher is None and self.representation_epochs:
            raise ValueError(
                f"{type(self).__name__}.representation_epochs is {self.representation_epochs:g} and there is no teacher to "
                "follow: name one, or leave representation_epochs at 0"
            )
        return self


def from_dictionary(given: Any) -> Any:
    """The stage that a dictionary describes, if its technique's module has been imported; anything else as it is.

    Raises:
        ValueError: no technique of that name has been imported.
    """
    if not isinstance(given, dict):
        return given
    known = {kind.model_fields["technique"].default: kind for kind in _kinds(Stage)}
    name = str(given.get("technique"))
    kind = known.get(name) or (_ELSEWHERE.get(name) if name in _ELSEWHERE.names() else None)
    if kind is None:
        expected = dict.fromkeys((*known, *_ELSEWHERE.names()))
        raise ValueError(f"no such technique is imported; expected one of {', '.join(expected)}")
    return kind(**given)


def _kinds(base: type) -> Iterator[type[Stage]]:
    """The classes of techniques below a base."""
    kinds: list[type] = base.__subclasses__()
    for kind in kinds:
        if not isabstract(kind):
            yield kind
        yield from _kinds(kind)
