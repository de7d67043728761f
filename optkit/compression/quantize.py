"""INT8 quantization of the encoder: insert quantisers, calibrate, train, freeze (see `optkit.compression.quantizers`)."""

import copy
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from optkit.recipe.stage import History, Taught

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from optkit.compression.context import Context
    from optkit.graph.audit import Audit
    from optkit.models.loading import LoadedModel

Calibrator = Literal["max", "percentile", "mse", "entropy"]
Weights = Literal["per_channel", "per_tensor"]


class Quantize(Taught):
    """INT8 quantization: symmetric, activations per tensor (Wu et al. 2020, arXiv 2004.09602).

    `epochs=0` is post-training quantization; otherwise quantization-aware training follows the calibration.

        optkit.Recipe(name="qat", stages=[optkit.Quantize(calibrator="mse", epochs=1)])
    """

    technique: Literal["quantize"] = "quantize"
    order: ClassVar[int] = 30
    quantises: ClassVar[bool] = True
    calibrator: Calibrator = "max"
    """Calibrator that chooses an activation's amax from the calibration data."""
    percentile: float = Field(99.99, gt=50, le=100)
    """Percentile of the absolute values that amax is set to, in percent; for the percentile calibrator only."""
    calibration_examples: int = Field(512, ge=1)
    weights: Weights = "per_channel"
    """Scales of a weight: one per output channel, or a single one, shared by the weights that read the same tensor (query,
    key and value). Only with the latter do TensorRT's GEMMs write INT8; train some epochs, as it rounds more coarsely."""
    gelu_clip: float | None = Field(None, gt=0)
    """Upper bound of GELU's output, so that a few large activations do not take the whole INT8 range."""
    embeddings: bool = True
    """Whether the word embeddings are stored in INT8 too, with one scale per word."""
    epochs: float = Field(0, ge=0)
    learning_rate: float | None = Field(1e-5, gt=0)

    def preflight(self, model: "PreTrainedModel", recipe: str) -> "PreTrainedModel":
        """Return the model unchanged.

        Raises:
            InputError: there is no GELU to clip.
        """
        from optkit.models.gelu import clip_gelu

        if self.gelu_clip is not None:
            clip_gelu(copy.deepcopy(model), self.gelu_clip)
        return model

    def apply(self, loaded: "LoadedModel", context: "Context") -> History:
        """Quantise a float model in place, with scales from its checkpoint or by calibration, and train it if `epochs` > 0.

        Training updates the weights only: the scales are buffers, which the optimiser does not see.

        Returns:
            Training history, empty for post-training quantization.

        Raises:
            InputError: there is nothing to quantise, the checkpoint's scales do not fit, or an activation has no range.
            TrainingError: the loss is not finite.
        """
        from optkit.compression import fake_quantization, quantizers
        from optkit.compression.retrain import retrain

        quantizers.insert(loaded.model, self)
        if loaded.amax:
            quantizers.load_amax(loaded.model, loaded.amax)
        else:
            quantizers.calibrate(loaded.model, lambda model: context.run_examples(model, self.calibration_examples))
        with fake_quantization.fast(quantizers.quantisers(loaded.model).values()):
            history = retrain(loaded, self, context, "quantization-aware training")
        if self.embeddings:
            quantizers.round_embeddings(loaded.model)
        return history

    def restore(self, model: "PreTrainedModel", tensors: dict[str, "torch.Tensor"]) -> None:
        """Insert quantisers with the scales of a checkpoint.

        Raises:
            InputError: a quantiser has no scale, or a scale has the wrong shape; names all of them.
        """
        from optkit.compression import quantizers

        quantizers.insert(model, self)
        amax = {name.removesuffix("._amax"): tensor for name, tensor in tensors.items() if name.endswith("._amax")}
        quantizers.load_amax(model, amax)

    def check(self, model: "PreTrainedModel", when: str) -> None:
        """Raise `InputError` naming every quantiser without a finite, positive amax."""
        from optkit.compression import quantizers

        quantizers.check(model)

    def check_graph(self, audit: "Audit", model: "PreTrainedModel") -> None:
        """Raise `InputError` naming every node that is wrongly quantised or wrongly left in float."""
        audit.check_quantised()
