"""Recipes: what is done to a model, as frozen settings that are checked when they are made.

A recipe is data. It knows neither the code of its techniques nor the task it will be run on, so that it can be printed,
hashed, compared and written beside what it produced.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, PrivateAttr, ValidationError

from optkit.errors import InputError

BASELINE = "baseline_fp32"
Calibrator = Literal["max", "percentile", "mse", "entropy"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


class RecipeError(InputError):
    """A recipe has mistakes; the message lists all of them."""


class Settings(BaseModel, frozen=True, extra="forbid"):
    """Part of a recipe. It keeps its mistakes until the recipe it stands in reports all of them together."""

    _mistakes: list[str] = PrivateAttr(default_factory=list)

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            super().__init__()
            self._mistakes = [_mistake(type(self), detail) for detail in error.errors()]


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
    precision: Precision = "auto"
    """Autocast type of forward and backward; `auto` is bf16 or fp16 where the device computes in it, else fp32."""

    def for_task(self, defaults: dict[str, Any]) -> "Training":
        """The same settings with every None filled from the task's defaults, then from those of BERT fine-tuning."""
        filled = {**_BERT_FINE_TUNING, **defaults}
        given = {name: value for name, value in self.model_dump().items() if value is not None}
        return Training(**{**filled, **given})


# Devlin et al. 2018 (arXiv 1810.04805), appendix A.3
_BERT_FINE_TUNING = {"epochs": 2, "learning_rate": 5e-5, "batch_size": 32, "warmup_ratio": 0.1, "weight_decay": 0.01}


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


class Recipe(BaseModel, frozen=True, extra="forbid"):
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
        mistakes = list(_kept_mistakes(given))
        try:
            super().__init__(**given)
        except ValidationError as error:
            mistakes += [_mistake(type(self), detail) for detail in error.errors()]
        if mistakes:
            raise RecipeError(_report(given.get("name"), mistakes))

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


def _kept_mistakes(given: dict[str, Any]) -> Iterator[str]:
    stages = given.get("stages", ())
    for part in [*(stages if isinstance(stages, list | tuple) else ()), given.get("training")]:
        if isinstance(part, Settings):
            yield from part._mistakes


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


def _report(name: Any, mistakes: list[str]) -> str:
    count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    return f"recipe {name!r} has {count}:\n" + "\n".join(f"  - {mistake}" for mistake in mistakes)
