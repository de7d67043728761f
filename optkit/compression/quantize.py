"""INT8 quantization of the encoder: insert quantisers, calibrate, train, freeze (see `optkit.compression.quantizers`)."""

import copy
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from optkit.compression import kept
from optkit.compression.kept import Kept
from optkit.recipe.stage import History, Taught
from optkit.recipe.unread import ANSWERED, TRAINED, TRAINING, ReadWhere

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from optkit.compression.context import Context
    from optkit.compression.sensitivity import OneByOne
    from optkit.graph.audit import Audit
    from optkit.models.loading import LoadedModel

Calibrator = Literal["max", "percentile", "mse", "entropy", "kl"]
Weights = Literal["per_channel", "per_tensor"]


class Quantize(Taught):
    """INT8 quantization: symmetric, activations per tensor (Wu et al. 2020, arXiv 2004.09602).

    `epochs=0` is post-training quantization; otherwise quantization-aware training follows the calibration.

        optkit.Recipe(name="qat", stages=[optkit.Quantize(calibrator="mse", epochs=1)])
    """

    technique: Literal["quantize"] = "quantize"
    order: ClassVar[int] = 30
    quantises: ClassVar[bool] = True
    read_where: ClassVar[Mapping[str, ReadWhere]] = {
        **TRAINING,
        "percentile": ReadWhere(
            ("calibrator",), lambda stage: stage.calibrator == "percentile", "the calibrator is not percentile"
        ),
        "keep_budget": kept.CHOSEN["keep_float"],
        "scale_rate": TRAINED,
        "quant_noise": TRAINED,
        "guard": ANSWERED,
    }
    calibrator: Calibrator = "max"
    """Calibrator that chooses an activation's amax from the calibration data; `kl` by the divergence of the answers."""
    percentile: float = Field(99.99, gt=50, le=100)
    """Percentile of the absolute values that amax is set to, in percent; for the percentile calibrator only."""
    calibration_examples: int = Field(512, ge=1)
    weights: Weights = "per_channel"
    """Scales of a weight: one per output channel, or a single one, shared by the weights that read the same tensor (query,
    key and value). Only with the latter do TensorRT's GEMMs write INT8; train some epochs, as it rounds more coarsely."""
    gelu_clip: float | None = Field(None, gt=0)
    """Upper bound of GELU's output, so that a few large activations do not take the whole INT8 range."""
    shift: bool = False
    """Whether channels of LayerNorm's outputs are centred first, which the biases that follow give back (see
    `compression.outlier_shift`)."""
    scale_rate: float = Field(0, ge=0)
    """Learning rate of the scales' logarithms, as a multiple of the weights' (LSQ, Esser et al. 2020, arXiv 1902.08153); 0
    keeps the scales as calibrated."""
    quant_noise: float = Field(1, gt=0, le=1)
    """Share of the weights' blocks that are quantised in each step of training (Quant-Noise, Fan et al. 2021, arXiv
    2004.07320); 1 quantises all."""
    guard: bool = True
    """Whether a twentieth of the training examples is held out, and the calibrated weights are kept where training makes the
    answers to these no better."""
    keep_float: Kept = ()
    """Names of Linear modules of the encoder that stay float, with `*` for any part of a name; "auto" chooses those that
    bring most, within `keep_budget` (see `compression.sensitivity`)."""
    keep_budget: float = Field(0.1, gt=0, lt=1)
    """Most of the encoder's multiply-adds that "auto" leaves in float, as a share."""
    embeddings: bool = True
    """Whether the word embeddings are stored in INT8 too, with one scale per word."""
    epochs: float = Field(0, ge=0)
    learning_rate: float | None = Field(1e-5, gt=0)

    def preflight(self, model: "PreTrainedModel", recipe: str) -> "PreTrainedModel":
        """Return the model unchanged.

        Raises:
            InputError: there is no GELU to clip, or no module is called as one of `keep_float`.
        """
        from optkit.models.gelu import clip_gelu

        self._named(model)

        if self.gelu_clip is not None:
            clip_gelu(copy.deepcopy(model), self.gelu_clip)
        return model

    @model_validator(mode="after")
    def _hidden_states_are_the_teachers(self) -> Self:
        if self.shift and self.follows:
            raise ValueError(
                "Quantize.shift moves the hidden states that a representation phase would move back to the teacher's: leave "
                "one of them out"
            )
        return self

    def apply(self, loaded: "LoadedModel", context: "Context") -> History:
        """Quantise a float model in place, with scales from its checkpoint or by calibration, and train it if asked to.

        Training updates the weights, and the scales only with a `scale_rate`.

        Returns:
            Training history, empty for post-training quantization.

        Raises:
            InputError: there is nothing to quantise, the checkpoint's scales do not fit, or an activation has no range.
            TrainingError: the loss is not finite.
        """
        from optkit.compression import quantizers

        self.checked()
        if self.shift:
            self._shift(loaded, context)
        kept.record(loaded.model, self.technique, self._left_float(loaded, context))
        if not loaded.amax:
            kept.record(loaded.model, kept.UNCALLED, ())
        quantizers.insert(loaded.model, self, self._unquantised(loaded.model))
        if loaded.amax:
            quantizers.load_amax(loaded.model, loaded.amax)
        else:
            self._calibrate(loaded, context)
        history = self._train(loaded, context) if self.trains else []
        self._round_embeddings(loaded)
        return history

    def _round_embeddings(self, loaded: "LoadedModel") -> None:
        """Move the word embeddings onto INT8's grid, unless they are small already; say where scales part shared blocks."""
        from optkit.compression import quantizers
        from optkit.models import shared_blocks
        from optkit.models.families import encoder_linears, word_embeddings

        if self.embeddings and shared_blocks.find(word_embeddings(loaded.model)) is None:
            quantizers.round_embeddings(loaded.model)
        elif self.embeddings:
            loaded.remarks.append("quantize: the word embeddings share their blocks, and are left as they are")
        shared = [one for one in encoder_linears(loaded.model).values() if shared_blocks.find(one.weight) is not None]
        if shared and self.weights == "per_channel":
            loaded.remarks.append(
                f"quantize: {len(shared)} weights share their blocks, and a scale for each channel rounds equal blocks "
                'differently: their engines are not packed; weights="per_tensor" keeps them'
            )

    def _shift(self, loaded: "LoadedModel", context: "Context") -> None:
        """Centre what quantisers read, unless the checkpoint's scales are for what they read now."""
        from optkit.compression import outlier_shift

        if loaded.amax:
            loaded.remarks.append("no outlier shift: the checkpoint's scales are for activations as they are")
            return
        count = self.calibration_examples
        forward = partial(context.run_examples, count=count)
        if remark := outlier_shift.shift(loaded.model, next(iter(context.feeds(count))), forward):
            loaded.remarks.append(remark)

    def _named(self, model: "PreTrainedModel") -> list[str]:
        """The modules that `keep_float` names."""
        from optkit.models.families import encoder_linears

        return kept.resolve(self.keep_float, encoder_linears(model), "Quantize.keep_float")

    def _left_float(self, loaded: "LoadedModel", context: "Context") -> list[str]:
        """The modules that stay float; a remark says which, and why."""
        from optkit.compression import sensitivity
        from optkit.models.families import encoder_linears

        if self.keep_float == "auto":
            one_by_one = self.model_copy(update={"shift": False}).one_by_one(loaded, context)  # it is shifted already
            chosen, remark = sensitivity.chosen(
                one_by_one, context, sensitivity.gains, "keep_float", "float", self.keep_budget
            )
            loaded.remarks.append(remark)
            return chosen
        if names := self._named(loaded.model):
            work = kept.share(encoder_linears(loaded.model), names)
            loaded.remarks.append(f"keep_float: {', '.join(names)} stay float, {work:.1%} of the encoder's multiply-adds")
        return names

    def one_by_one(self, loaded: "LoadedModel", context: "Context") -> "OneByOne":
        """Return a calibrated copy of a float model in which any of the modules are INT8, and the others float."""
        from optkit.compression import sensitivity

        made = copy.copy(loaded)
        made.model, made.remarks = copy.deepcopy(loaded.model), []
        untrained = {"epochs": 0, "steps": None, "representation_epochs": 0, "representation_steps": None}
        self.model_copy(update={**untrained, "keep_float": (), "embeddings": False}).apply(made, context)
        return sensitivity.quantised(made.model)

    def _unquantised(self, model: "PreTrainedModel") -> frozenset[str]:
        """The names of the encoder's modules without quantisers: those that are left float, and those never called."""
        return kept.names(model, self.technique) | kept.names(model, kept.UNCALLED)

    def _calibrate(self, loaded: "LoadedModel", context: "Context") -> None:
        from optkit.compression import quantizers

        model, count = loaded.model, self.calibration_examples
        if uncalled := quantizers.calibrate(model, partial(context.run_examples, count=count)):
            kept.record(model, kept.UNCALLED, uncalled)
            loaded.remarks.append(f"quantize: {', '.join(uncalled)} stay float: the model never calls them on texts")
        if self.calibrator == "kl":
            groups = quantizers.same_inputs(model, next(iter(context.feeds(count))))
            quantizers.least_divergence(model, context.feeds(count), context.task, groups)

    def _train(self, loaded: "LoadedModel", context: "Context") -> History:
        from optkit.compression import fake_quantization, quantized_training, quantizers
        from optkit.compression.guard import guarded
        from optkit.compression.retrain import retrain

        setting = quantized_training.Setting(self.scale_rate, self.quant_noise)
        together = quantizers.with_same_scale(loaded.model, next(iter(context.feeds(1))))
        linears = list(quantizers.quantised_linears(loaded.model).values())

        def train(part: "Context") -> History:
            with (
                fake_quantization.fast(quantizers.quantisers(loaded.model).values()),
                quantized_training.training(linears, together, setting),
            ):
                return retrain(loaded, self, part, "quantization-aware training")

        return guarded(loaded, self, context, train) if self.guard and self.answers else train(context)

    def restore(self, model: "PreTrainedModel", tensors: dict[str, "torch.Tensor"]) -> None:
        """Insert quantisers with the scales of a checkpoint.

        Raises:
            InputError: a quantiser has no scale, or a scale has the wrong shape; names all of them.
        """
        from optkit.compression import quantizers

        quantizers.insert(model, self, self._unquantised(model))
        amax = {name.removesuffix("._amax"): tensor for name, tensor in tensors.items() if name.endswith("._amax")}
        quantizers.load_amax(model, amax)

    def check(self, model: "PreTrainedModel", when: str) -> None:
        """Raise `InputError` naming every quantiser without a finite, positive amax."""
        from optkit.compression import quantizers

        quantizers.check(model)

    def check_graph(self, audit: "Audit", model: "PreTrainedModel") -> None:
        """Raise `InputError` naming every node that is wrongly quantised or wrongly left in float."""
        audit.check_quantised(kept.names(model, self.technique))
