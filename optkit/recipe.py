"""Recipes: what is done to a model, as frozen settings that are checked when they are made.

A recipe is data. It knows neither the code of its techniques nor the task it will be run on, so that it can be printed,
hashed, compared and written beside what it produced.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, PrivateAttr, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from optkit.errors import InputError

BASELINE = "baseline_fp32"
Calibrator = Literal["max", "percentile", "mse", "entropy"]
_OF_PARTS = "mistakes_of_parts"
Precision = Literal["auto", "fp32", "bf16", "fp16"]


class RecipeError(InputError):
    """A recipe has mistakes; the message lists all of them."""


class Settings(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Part of a recipe. It keeps its mistakes until the recipe it stands in reports all of them together.

    Whoever uses one without a recipe asks for it `checked()`.
    """

    _mistakes: list[str] = PrivateAttr(default_factory=list)

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            super().__init__()
            self._mistakes = [_mistake(type(self), detail) for detail in error.errors()]

    def checked(self) -> Self:
        """These settings themselves.

        Raises:
            RecipeError: naming every mistake in them.
        """
        if self._mistakes:
            raise RecipeError(_report(f"{type(self).__name__} has", self._mistakes))
        return self


class Training(Settings):
    """How weights are trained. A field left at None takes what suits the task (see `for_task`)."""

    epochs: float | None = Field(None, gt=0)
    learning_rate: float | None = Field(None, gt=0)
    batch_size: int | None = Field(None, ge=1)
    """Examples per optimiser step and process."""
    warmup_ratio: float | None = Field(None, ge=0, lt=1)
    """Share of the steps in which the learning rate rises linearly from 0; it falls linearly to 0 after them."""
    weight_decay: float | None = Field(None, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    gradient_accumulation: int = Field(1, ge=1)
    """Micro-batches that one optimiser step is split into."""
    precision: Precision | None = None
    """Autocast type of forward and backward; `auto` is bf16 or fp16 where the device computes in it, else fp32."""

    def for_task(self, defaults: dict[str, Any]) -> "Training":
        """The same settings with every None filled from the task's defaults, then from those of BERT fine-tuning.

        Raises:
            RecipeError: naming every mistake in the settings.
        """
        self.checked()
        filled = {**_BERT_FINE_TUNING, **defaults}
        given = {name: value for name, value in self.model_dump().items() if value is not None}
        return Training(**{**filled, **given}).checked()


# Devlin et al. 2018 (arXiv 1810.04805), appendix A.3
_BERT_FINE_TUNING = {
    "epochs": 2,
    "learning_rate": 5e-5,
    "batch_size": 32,
    "warmup_ratio": 0.1,
    "weight_decay": 0.01,
    "precision": "auto",
}


class Quantize(Settings):
    """INT8: symmetric, weights per output channel, activations per tensor (Wu et al. 2020, arXiv 2004.09602).

    With `epochs=0` it is post-training quantization; otherwise quantization-aware training follows the calibration.
    """

    technique: Literal["quantize"] = "quantize"
    calibrator: Calibrator = "max"
    """How an activation's amax is chosen from the calibration data."""
    percentile: float = Field(99.99, gt=50, le=100)
    """Share of the absolute values that stay in range; for the percentile calibrator."""
    calibration_examples: int = Field(512, ge=1)
    gelu_clip: float | None = Field(None, gt=0)
    """Upper bound of GELU's output, so that a few large activations do not take the whole INT8 range."""
    epochs: float = Field(0, ge=0)
    learning_rate: float = Field(1e-5, gt=0)
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    teacher: str | None = BASELINE
    """Recipe whose logits are distilled while training; None trains on the labels alone."""
    temperature: float = Field(2.0, gt=0)
    label_weight: float = Field(0.1, ge=0, le=1)
    """Weight of the labels' cross-entropy beside the teacher."""


Stage = Quantize


class Recipe(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A name and the stages a model goes through. Without stages it is the FP32 baseline.

    Raises:
        RecipeError: naming every mistake of the recipe and of its parts.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$")
    """Also the name of its folder: small letters, digits and underscores."""
    stages: tuple[Stage, ...] = ()
    training: Training = Training()
    """Of the baseline; the stages take from it what they do not set themselves."""
    max_drop: float = Field(1.0, ge=0)
    """Gate: largest loss of the metric in points against the served FP32 baseline."""
    description: str = ""

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            details = error.errors()
            mistakes = [mistake for detail in details for mistake in detail.get("ctx", {}).get(_OF_PARTS, [])]
            mistakes += [_mistake(type(self), detail) for detail in details if detail["type"] != _OF_PARTS]
            raise RecipeError(_report(f"recipe {given.get('name')!r} has", mistakes)) from None

    @field_validator("stages", "training")
    @classmethod
    def _report_parts(cls, parts: Any, field: ValidationInfo) -> Any:
        """Pass on what the parts have kept, also of those that were given as dictionaries."""
        stages = parts if isinstance(parts, tuple) else ()
        mistakes = [mistake for part in stages or [parts] if part for mistake in part._mistakes]
        mistakes += _mistakes_of_order(field.data.get("name"), stages)
        if mistakes:
            raise PydanticCustomError(_OF_PARTS, "mistakes in parts", {_OF_PARTS: mistakes})
        return parts

    @property
    def is_baseline(self) -> bool:
        return not self.stages

    @property
    def is_quantised(self) -> bool:
        return any(stage.technique == "quantize" for stage in self.stages)

    @property
    def teachers(self) -> tuple[str, ...]:
        """Names of the recipes whose logits this one needs."""
        names = [stage.teacher for stage in self.stages if stage.teacher and stage.epochs]
        return tuple(dict.fromkeys(names))

    def resolved(self) -> dict[str, Any]:
        """Everything that shapes the result, in JSON's types: what is hashed and kept with a checkpoint."""
        return self.model_dump(mode="json", exclude={"description", "max_drop"})

    def digest(self) -> str:
        """SHA-256 of `resolved`."""
        return hashlib.sha256(json.dumps(self.resolved(), sort_keys=True).encode()).hexdigest()

    def main(self) -> None:
        """Run this recipe from its own script: `python recipes/NAME.py --task TASK`, options as of `optkit run`."""
        import sys

        from optkit.cli import main

        main(["run", str(Path(sys.argv[0])), *sys.argv[1:]])


def _mistakes_of_order(name: Any, stages: tuple[Stage, ...]) -> Iterator[str]:
    for technique, count in Counter(stage.technique for stage in stages).items():
        if count > 1:
            yield f"Recipe.stages has {count} stages {technique!r}: expected each technique once"
    if stages and name == BASELINE:
        yield f"Recipe.name is {BASELINE!r} and there are stages: the baseline has none; give this recipe another name"


def _mistake(owner: type, detail: Any) -> str:
    """One line from one of pydantic's error details."""
    field = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{owner.__name__} has no setting {field!r}; it has {', '.join(_settable(owner))}"
    if detail["type"] == "missing":
        return f"{owner.__name__} needs {field}"
    message = detail["msg"].removeprefix("Value error, ")
    if not field:
        return message
    return f"{owner.__name__}.{field} is {detail['input']!r}: {message[0].lower()}{message[1:]}"


def _settable(owner: type) -> list[str]:
    return [name for name in owner.model_fields if name != "technique"]  # type: ignore[attr-defined]


def _report(owner: str, mistakes: list[str]) -> str:
    count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    return f"{owner} {count}:\n" + "\n".join(f"  - {mistake}" for mistake in mistakes)
