"""Training settings of the baseline; a stage has a budget, a schedule and an average of its own, and inherits the others."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from optkit.core.settings import Settings

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Schedule = Literal["linear", "cosine", "constant"]
"""How the learning rate falls from its peak to 0 after the warm-up; "constant" stays there, for a later stage to go on."""


class Training(Settings):
    """Training settings: AdamW with linear warm-up, then decay.

    A field left at None takes the task's default (see `for_task`); `steps` go in place of epochs.

        optkit.Recipe(name="baseline_fp32", training=optkit.Training(epochs=3, learning_rate=3e-5))
    """

    epochs: float | None = Field(None, gt=0)
    learning_rate: float | None = Field(None, gt=0)
    batch_size: int | None = Field(None, ge=1)
    """Training features per optimiser step and process."""
    steps: int | None = Field(None, ge=1)
    """Optimiser steps, in place of `epochs`: a budget that does not grow with the data."""
    warmup_ratio: float | None = Field(None, ge=0, lt=1)
    """Share of the steps with linear warm-up of the learning rate from 0; decay to 0 follows."""
    schedule: Schedule = "linear"
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of a running average of the weights, which training ends with; 0 ends with the last step's weights."""
    weight_decay: float | None = Field(None, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    gradient_accumulation: int = Field(1, ge=1)
    """Number of micro-batches that one optimiser step is split into."""
    precision: Precision | None = None
    """Autocast type; `auto` is bf16 or fp16 where the device computes in it, else fp32."""

    def for_task(self, defaults: dict[str, Any]) -> "Training":
        """Return the settings with every None filled from the task's defaults, then from those of BERT fine-tuning.

        Args:
            defaults: the task's defaults by field.

        Raises:
            RecipeError: naming every mistake in the settings.
        """
        self.checked()
        filled = {**_BERT_FINE_TUNING, **defaults}
        given = {name: value for name, value in self.model_dump().items() if value is not None}
        if self.steps is not None:
            del filled["epochs"]
        return Training(**{**filled, **given}).checked()

    @model_validator(mode="after")
    def _has_one_budget(self) -> Self:
        if self.epochs is not None and self.steps is not None:
            raise ValueError(f"Training has epochs={self.epochs:g} and steps={self.steps}: expected one of them")
        return self


# Devlin et al. 2018 (arXiv 1810.04805), appendix A.3
_BERT_FINE_TUNING = {
    "epochs": 2,
    "learning_rate": 5e-5,
    "batch_size": 32,
    "warmup_ratio": 0.1,
    "weight_decay": 0.01,
    "precision": "auto",
}
