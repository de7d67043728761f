"""Recipes: what is done to a model, as frozen settings that are checked when they are made.

A recipe is data. It knows neither which techniques there are nor the task it will be run on, so that it can be printed,
hashed, compared and written beside what it produced.
"""

import hashlib
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, SerializeAsAny, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from optkit.core.settings import RecipeError, mistake, report
from optkit.recipe.stage import BASELINE, Stage, from_dictionary
from optkit.recipe.training import Training

_OF_PARTS = "mistakes_of_parts"
_GATE = ("max_drop", "max_kl", "max_flips", "min_speedup", "max_p99_ms")
_SERVED = (*_GATE, "workload")
"""What has no say in the checkpoint."""
Size = Annotated[int, Field(ge=1, strict=True)]
MOST_TOKENS = 2**18
"""Tokens of one batch of a workload, at most: every engine is timed at it, and more may take all of a machine's memory."""


def _threshold(given: Any) -> Any:
    """A threshold of speed, with batch sizes as text, as JSON has them; raises `ValueError` for anything else."""
    each = given if isinstance(given, Mapping) else {"": given}
    fits = all(isinstance(size, int | str) and _is_bound(value) for size, value in each.items())
    if given is not None and not (each and fits):
        raise ValueError("expected one number above 0 for every batch size, or one by batch size, as in {1: 5.0, 32: 40.0}")
    return {str(size): value for size, value in given.items()} if isinstance(given, Mapping) else given


def _is_bound(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


Threshold = Annotated[float | dict[str, float] | None, BeforeValidator(_threshold)]


class Recipe(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A named sequence of stages applied to a model. Without stages it is the FP32 baseline.

        recipe = optkit.Recipe(name="ptq_int8", stages=[optkit.Quantize(calibrator="mse")], max_drop=0.5)

    Raises:
        RecipeError: naming every mistake of the recipe and of its parts.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$")
    """Name of the recipe and of its folder: small letters, digits and underscores."""
    stages: tuple[Annotated[SerializeAsAny[Stage], BeforeValidator(from_dictionary)], ...] = ()
    training: Training = Training()
    """Training settings of the baseline; a stage has a budget, a schedule and an average of its own, and inherits others:
    batch size, weight decay, precision, …, and the learning rate where it has none."""
    max_drop: float = Field(1.0, ge=0)
    """Gate: largest drop of the headline metric, in points, from the served FP32 baseline."""
    max_kl: float | None = Field(None, ge=0)
    """Gate: largest mean divergence (KL) of the baseline's probabilities from the recipe's, in nats."""
    max_flips: float | None = Field(None, ge=0, le=100)
    """Gate: largest share of the examples that are decided otherwise than by the baseline, in percent."""
    min_speedup: Threshold = None
    """Gate: smallest speed-up over the served FP32 baseline, for every batch size or by batch size."""
    max_p99_ms: Threshold = None
    """Gate: largest 99th percentile of the served latency in ms, for every batch size or by batch size."""
    workload: tuple[tuple[Size, Size], ...] = ()
    """What the engines are for, as batches of (rows, tokens): `[(1, 32)]` keeps the engine that is the fastest at one short
    row. Empty keeps the fastest in the mean over 1x32, 1x128, 8x128 and 32x128."""
    description: str = ""

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            details = error.errors()
            mistakes = [of_part for detail in details for of_part in detail.get("ctx", {}).get(_OF_PARTS, [])]
            mistakes += [mistake(type(self), detail) for detail in details if detail["type"] != _OF_PARTS]
            raise RecipeError(report(f"recipe {given.get('name')!r} has", mistakes)) from None

    @field_validator("stages", "training")
    @classmethod
    def _report_parts(cls, parts: Any, field: ValidationInfo) -> Any:
        """Raise the mistakes that the parts have collected, including parts given as dictionaries."""
        stages = parts if isinstance(parts, tuple) else ()
        mistakes = [of_part for part in stages or [parts] if part for of_part in part._mistakes]
        mistakes += _mistakes_of_order(field.data.get("name"), stages)
        if mistakes:
            raise PydanticCustomError(_OF_PARTS, "mistakes in parts", {_OF_PARTS: mistakes})
        return parts

    @field_validator("workload")
    @classmethod
    def _fits_in_memory(cls, shapes: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        if too_large := [f"{rows}x{tokens}" for rows, tokens in shapes if rows * tokens > MOST_TOKENS]:
            raise ValueError(f"expected batches of up to {MOST_TOKENS:,} tokens; found {', '.join(too_large)}")
        return shapes

    @property
    def is_baseline(self) -> bool:
        return not self.stages

    @property
    def is_quantised(self) -> bool:
        return any(stage.quantises for stage in self.stages)

    @property
    def is_sparse(self) -> bool:
        return self.sparsity is not None

    @property
    def sparsity(self) -> str | None:
        """Sparsity pattern of the weights, such as "2:4"; None for dense weights."""
        return next((stage.sparsity for stage in self.stages if stage.sparsity), None)

    @property
    def is_half(self) -> bool:
        """Whether a stage only makes what a later one, which these stages lack, is to train: its model knows nothing yet."""
        return any(_waiting(self.stages))

    def has(self, technique: str) -> bool:
        """Return whether one of the stages is of a technique.

        Args:
            technique: its name, such as "quantize".
        """
        return any(stage.technique == technique for stage in self.stages)

    @property
    def teachers(self) -> tuple[str, ...]:
        """Teachers of all stages, each once: recipes, recipes of a seed, and folders of models (see `teacher_names`)."""
        return tuple(dict.fromkeys(name for stage in self.stages for name in stage.teachers))

    @property
    def modules(self) -> tuple[str, ...]:
        """Modules that define the techniques; steps that call the stages add them to their `code_version`."""
        return tuple(sorted({type(stage).__module__ for stage in self.stages}))

    def trained_with(self, training: Training) -> "Recipe":
        """Return the recipe with training settings in place of its own; those that are None change nothing."""
        given = training.model_dump(exclude_unset=True, exclude_none=True)
        if given.keys() & {"epochs", "steps"}:
            given = {"epochs": None, "steps": None, **given}  # one budget goes in place of the other
        return self.model_copy(update={"training": self.training.model_copy(update=given)}) if given else self

    def resolved(self) -> dict[str, Any]:
        """Return all settings that affect the result, in JSON types, as hashed and stored with a checkpoint."""
        return self.model_dump(mode="json", exclude={"description", *_SERVED})

    def digest(self) -> str:
        """Return the SHA-256 of `resolved`, as hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.resolved(), sort_keys=True).encode()).hexdigest()

    def main(self) -> None:
        """Refuse the call that recipes of version 0.1 make, and print its replacement, `optkit.main(recipe)`.

        Raises:
            SystemExit: always, with status 2.
        """
        print("optkit: error: recipe.main() is no more. Write: import optkit; optkit.main(recipe)", file=sys.stderr)
        raise SystemExit(2)


def _mistakes_of_order(name: Any, stages: tuple[Stage, ...]) -> Iterator[str]:
    techniques = [stage.technique for stage in stages]
    for technique, count in Counter(techniques).items():
        if count > 1:
            yield f"Recipe.stages has {count} stages {technique!r}: expected each technique once"
    for stage in _waiting(stages):
        yield (
            f"{type(stage).__name__} trains nothing and no later stage does: expected epochs or steps in one of them, "
            "since what it makes of the model knows nothing yet"
        )
    expected = [stage.technique for stage in sorted(stages, key=lambda stage: stage.order)]
    if techniques != expected:
        yield (
            f"Recipe.stages go {' → '.join(techniques)}: expected {' → '.join(expected)}, since each technique would undo "
            "what a later one in that order has fixed"
        )
    if stages and name == BASELINE:
        yield f"Recipe.name is {BASELINE!r} and there are stages: the baseline has none; give this recipe another name"


def _waiting(stages: tuple[Stage, ...]) -> Iterator[Stage]:
    """Stages whose model is to be trained by a later one, and there is none."""
    for position, stage in enumerate(stages):
        if stage.needs_training and not any(later.trains for later in stages[position + 1 :]):
            yield stage


def modules_of(recipes: Iterable[Recipe]) -> set[str]:
    """Return the modules that define the techniques of recipes."""
    return {module for recipe in recipes for module in recipe.modules}
