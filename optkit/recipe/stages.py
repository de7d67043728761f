"""The stages of a recipe, as settings only: how the baseline is trained, and what each technique is to do.

The order is the one in which they do the least harm: a student is distilled, then made sparse, then quantised.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from optkit.core.settings import Settings

BASELINE = "baseline_fp32"
ORDER = ("distill", "sparsify", "quantize")
Calibrator = Literal["max", "percentile", "mse", "entropy"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


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


class Taught(Settings):
    """What every stage has that trains: for how long, how fast, and beside which teacher (see `techniques.retrain`)."""

    epochs: float = Field(1, ge=0)
    """Of training on the task, beside the teacher's answers."""
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
    """Of a phase before, in which hidden states and attention relations follow the teacher's; 0 leaves it out."""
    representation_learning_rate: float = Field(3e-4, gt=0)
    """Of that phase, which tells each layer its target and so bears more than the second."""
    hidden_weight: float = Field(1.0, ge=0)
    relation_weight: float = Field(1.0, ge=0)
    relation_heads: int | None = Field(None, ge=1)
    """Into how many heads both models' queries, keys and values are cut; None takes the teacher's attention heads."""
    augment: float = Field(0.0, ge=0, lt=1)
    """Share of the words replaced by neighbours in the model's own embedding, anew in every epoch; 0 changes nothing."""

    @model_validator(mode="after")
    def _has_what_it_follows(self) -> Self:
        if self.teacher is None and self.representation_epochs:
            raise ValueError(
                f"{type(self).__name__}.representation_epochs is {self.representation_epochs:g} and there is no teacher to "
                "follow: name one, or leave representation_epochs at 0"
            )
        return self


class Distill(Taught):
    """A smaller student, begun from evenly spaced layers of the model and taught in two phases."""

    technique: Literal["distill"] = "distill"
    layers: int | None = Field(None, ge=1)
    """Of the student; None keeps the depth."""
    hidden_size: int | None = Field(None, ge=1)
    """Width of the student; None keeps it. A narrower student matches hidden states through a projection."""
    teacher: str = BASELINE
    epochs: float = Field(1, gt=0)
    representation_epochs: float = Field(3, ge=0)


class Sparsify(Taught):
    """2:4 structured sparsity the ASP way: prune the trained model, then repeat its training with the mask held fixed
    (Mishra et al. 2021, arXiv 2104.08378)."""

    technique: Literal["sparsify"] = "sparsify"
    criterion: Literal["magnitude", "sparsegpt"] = "magnitude"
    """Which two of four weights stay: the largest, or those whose loss SparseGPT (Frantar & Alistarh 2023, arXiv 2301.00774)
    finds hardest to make up for. Its own correction of what stays is left to the training."""
    calibration_examples: int = Field(512, ge=1)
    """Whose activations SparseGPT looks at."""
    epochs: float = Field(2, ge=0)


class Quantize(Taught):
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
    embeddings: bool = True
    """Store the word embeddings in INT8 too, one scale per word."""
    epochs: float = Field(0, ge=0)
    learning_rate: float | None = Field(1e-5, gt=0)


Stage = Annotated[Distill | Sparsify | Quantize, Field(discriminator="technique")]
