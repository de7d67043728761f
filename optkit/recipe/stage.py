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
from collections.abc import Iterator, Mapping
from inspect import isabstract
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from optkit.core.plugins import Registry
from optkit.core.settings import Settings
from optkit.recipe.teacher_names import teachers_or_none
from optkit.recipe.training import Schedule
from optkit.recipe.unread import TRAINING, ReadWhere

if TYPE_CHECKING:  # later rooms, and what takes long to import
    import torch
    from transformers import PreTrainedModel

    from optkit.compression.context import Context
    from optkit.engines.select import Conversion
    from optkit.graph.audit import Audit
    from optkit.models.loading import LoadedModel

_ELSEWHERE: Registry[type["Stage"]] = Registry("technique", "optkit.techniques", {})
"""Techniques of other packages; `optkit.compression.registry`, a later room, has optkit's own too."""
BASELINE = "baseline_fp32"
History = list[dict[str, float]]
"""Log of a training, one entry per logged step: step, epoch, loss and learning rate."""


class Stage(Settings, ABC):
    """Base class of techniques: frozen settings of one stage, and the methods that a recipe calls. `apply` is abstract."""

    technique: str
    """Name of the technique, declared as a `Literal` with itself as the default; stored in `recipe.json`."""
    order: ClassVar[int]
    """Position among a recipe's stages, ascending (distill 10, sparsify 20, product_quantize 25, quantize 30): each would
    undo what a later one has fixed."""
    quantises: ClassVar[bool] = False
    """Whether the exported graph has quantisers, so that INT8 engines can be built from it."""
    sparsity: ClassVar[str | None] = None
    """Sparsity pattern of the weights after the stage, such as "2:4"; None if it leaves them dense."""
    read_where: ClassVar[Mapping[str, ReadWhere]] = {}
    """What has to hold for a setting to be read, of those that are not read always."""

    @property
    def teachers(self) -> tuple[str, ...]:
        """Teachers of the stage: names of recipes, and folders of models."""
        return ()

    @property
    def trains(self) -> bool:
        """Whether the stage trains the model that it leaves."""
        return False

    @property
    def needs_training(self) -> bool:
        """Whether what the stage leaves answers nothing before a later stage has trained it."""
        return False

    def unread(self) -> dict[str, str]:
        """Return the settings that nothing reads as the others are, and why."""
        return {name: where.otherwise for name, where in self.read_where.items() if not where.holds(self)}

    def as_read(self) -> Self:
        """Return the stage with the usual values of what nothing reads."""
        return self.model_copy(update={name: self._usual(name) for name in self.unread()})

    @model_validator(mode="after")
    def _is_read(self) -> Self:
        """Refuse what would be ignored; what is stored, with its technique, may come from an earlier version."""
        return self if "technique" in self.model_fields_set else self.all_read()

    def all_read(self) -> Self:
        """Return the stage itself.

        Raises:
            ValueError: it has settings that nothing reads, other than their usual values.
        """
        why = {name: why for name, why in self.unread().items() if getattr(self, name) not in (None, self._usual(name))}
        if why:
            found = "; ".join(f"{name}={getattr(self, name)!r}, as {reason}" for name, reason in why.items())
            raise ValueError(f"{type(self).__name__} has settings that nothing reads, leave them out: {found}")
        return self

    @classmethod
    def _usual(cls, name: str) -> Any:
        return cls.model_fields[name].get_default()

    def preflight(self, model: "PreTrainedModel", recipe: str) -> "PreTrainedModel":
        """Check, before any training, that the stage can work on a model; warn where it applies to a part of it only.

        Args:
            model: input of the stage, possibly on the meta device; not changed.
            recipe: name of the recipe, for warnings.

        Returns:
            A model of the architecture that the stage will produce.

        Raises:
            InputError: the stage cannot work on this model.
        """
        return model

    @abstractmethod
    def apply(self, loaded: "LoadedModel", context: "Context") -> History:
        """Apply the technique to a model in place.

        Args:
            loaded: the model, its tokenizer, and scales and masks from its checkpoint.
            context: training features, settings, seed and teachers.

        Returns:
            Training history, empty if nothing is trained.
        """

    def restore(self, model: "PreTrainedModel", tensors: dict[str, "torch.Tensor"]) -> None:
        """Add the stage's modules and buffers to a fresh model, so that a checkpoint can be loaded into it.

        Args:
            model: made from the checkpoint's configuration, with random weights.
            tensors: tensors of the checkpoint by name, loaded into the model afterwards.
        """

    def check(self, model: "PreTrainedModel", when: str) -> None:
        """Raise if the stage's invariant is broken; called after the stage, after every later one, and on a checkpoint.

        Args:
            model: model to check.
            when: point in time for the message, such as "after quantize".
        """

    def check_graph(self, audit: "Audit", model: "PreTrainedModel") -> None:
        """Raise if the stage's invariant is broken in the ONNX graph exported from the model.

        Args:
            audit: audit of the graph.
            model: model that the graph was exported from.
        """

    def check_engines(self, conversion: "Conversion", model: "PreTrainedModel") -> None:
        """Raise if the stage's invariant is broken in the engines built from the graph.

        Args:
            conversion: the engines, one per precision.
            model: model that the graph was exported from.
        """


class Taught(Stage):
    """Base class of stages that train: epochs, learning rates, teacher and loss weights (see `compression.retrain`)."""

    read_where: ClassVar[Mapping[str, ReadWhere]] = TRAINING

    epochs: float = Field(1, ge=0)
    """Epochs of training on the task, with the teacher's logits as soft targets."""
    steps: int | None = Field(None, ge=0)
    """Optimiser steps of the same, in place of `epochs`: a budget that does not grow with the data."""
    learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate; None takes that of the baseline's training."""
    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Peak learning rates to choose from, in place of `learning_rate`: the model is trained with each, without a part of
    the training data, and the one with the least loss on that part is kept."""
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    schedule: Schedule = "linear"
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of a running average of the weights, which the training ends with; 0 ends with the last step's weights."""
    dropout: float | None = Field(0.0, ge=0, lt=1)
    """Dropout probability during training; None keeps the model's own, for training on labels alone. A teacher
    regularises enough, and dropout noise keeps a student from matching it."""
    teacher: Annotated[str | tuple[str, ...] | None, BeforeValidator(teachers_or_none)] = BASELINE
    """Teacher: name of a recipe, with `@seed` for that of another seed, or folder of a fine-tuned model (contains a slash).
    Of several, the answers are averaged: logits, not probabilities; of embeddings, vectors of length 1 (see
    `Task.mean_of_teachers`). Representations follow the first alone. None trains on the labels alone."""
    temperature: float = Field(2.0, gt=0)
    label_weight: float = Field(0.0, ge=0, le=1)
    """Weight of the task's loss on the labels; the loss on the teacher's logits has the rest. Where a model starts near its
    teacher, which has been fitted to the labels, they say little that is new."""
    representation_epochs: float = Field(0, ge=0)
    """Epochs of the preceding representation phase, which matches hidden states and attention relations to the teacher's;
    0 skips it."""
    representation_steps: int | None = Field(None, ge=0)
    """Optimiser steps of the same, in place of `representation_epochs`."""
    representation_learning_rate: float = Field(3e-4, gt=0)
    """Peak learning rate of the representation phase; higher than `learning_rate`, as each layer has a target of its own."""
    hidden_weight: float = Field(1.0, ge=0)
    relation_weight: float = Field(1.0, ge=0)
    relation_heads: int | None = Field(None, ge=1)
    """Number of relation heads that queries, keys and values of both models are split into; None takes the teacher's number
    of attention heads."""
    augment: float = Field(0.0, ge=0, lt=1)
    """Share of words replaced by neighbours in the model's own word embedding, drawn anew in every epoch; 0 disables it."""

    @property
    def answers(self) -> bool:
        """Whether the model is trained on answers: its teacher's, or the labels."""
        return bool(self.epochs if self.steps is None else self.steps)

    @property
    def follows(self) -> bool:
        """Whether a phase before matches representations."""
        return bool(self.representation_epochs if self.representation_steps is None else self.representation_steps)

    @property
    def trains(self) -> bool:
        """Whether there is any training, on answers or on representations."""
        return self.answers or self.follows

    @property
    def heeds_teacher(self) -> bool:
        """Whether a teacher would have a say: its representations are followed, or the labels have not all the weight."""
        return self.follows or (self.answers and self.label_weight < 1)

    @property
    def teachers(self) -> tuple[str, ...]:
        """The teachers, if there are some; empty if nothing is trained, or on the labels alone."""
        named = (self.teacher,) if isinstance(self.teacher, str) else self.teacher or ()
        return named if self.heeds_teacher else ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for epochs, steps in (("epochs", "steps"), ("representation_epochs", "representation_steps")):
            if getattr(self, steps) is not None and self._is_given(epochs):
                found = f"{type(self).__name__}.{steps} is {getattr(self, steps)} and {epochs} is {getattr(self, epochs):g}"
                raise ValueError(f"{found}: expected one of them")
        if len(set(self.learning_rates)) < len(self.learning_rates):
            rates = ", ".join(f"{rate:g}" for rate in self.learning_rates)
            raise ValueError(f"{type(self).__name__}.learning_rates are {rates}: expected each once")
        if self.teacher is None and self.follows:
            name = "representation_epochs" if self.representation_steps is None else "representation_steps"
            raise ValueError(
                f"{type(self).__name__}.{name} is {getattr(self, name):g} and there is no teacher to follow: name one, or "
                f"leave {name} at 0"
            )
        if self.follows and not self.hidden_weight and not self.relation_weight:
            raise ValueError(
                f"{type(self).__name__} has a representation phase, and both hidden_weight and relation_weight are 0: give "
                "one of them a weight, or leave the phase out"
            )
        if len(self.teachers) > 1 and not self.answers:
            raise ValueError(
                f"{type(self).__name__}.teacher names {len(self.teachers)}, and nothing is trained on their averaged "
                "logits: representations follow one teacher; name that one, or give epochs or steps"
            )
        return self

    def _is_given(self, name: str) -> bool:
        """Whether somebody has set a setting: what is stored, with its technique, has all settings, the usual ones too."""
        usual = getattr(self, name) == self._usual(name)
        return name in self.model_fields_set and not (usual and "technique" in self.model_fields_set)


def from_dictionary(given: Any) -> Any:
    """Return the stage that a user's dictionary describes; any other value is returned unchanged.

    Raises:
        ValueError: no technique of that name has been imported, or there are settings that nothing reads.
    """
    if not isinstance(given, dict):
        return given
    known = {kind.model_fields["technique"].default: kind for kind in _kinds(Stage)}
    name = str(given.get("technique"))
    kind = known.get(name) or (_ELSEWHERE.get(name) if name in _ELSEWHERE.names() else None)
    if kind is None:
        expected = dict.fromkeys((*known, *_ELSEWHERE.names()))
        raise ValueError(f"no such technique is imported; expected one of {', '.join(expected)}")
    stage = kind(**given)
    return stage if stage._mistakes else stage.all_read()


def _kinds(base: type) -> Iterator[type[Stage]]:
    """Yield the concrete subclasses of a base, at any depth."""
    kinds: list[type] = base.__subclasses__()
    for kind in kinds:
        if not isabstract(kind):
            yield kind
        yield from _kinds(kind)
