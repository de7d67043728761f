"""Quantisers of an encoder with NVIDIA's Model Optimizer: insert them, calibrate them, or take their scales from elsewhere.

Symmetric INT8, weights per output channel or per tensor, activations per tensor, only on the Linear modules of the
encoder's layers: embeddings, LayerNorm, pooler and head stay float (Wu et al. 2020, arXiv 2004.09602).
"""

import io
import warnings
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from optkit.compression.calibration import METHODS, HistogramCalibrator
from optkit.compression.fake_quantization import INT8_MAX
from optkit.compression.kl_calibration import best_amax
from optkit.compression.model_optimizer import CUSTOM_MODEL_PLUGINS, TensorQuantizer, mtq
from optkit.core.errors import InputError
from optkit.models.families import encoder_linears, word_embeddings
from optkit.models.gelu import clip_gelu
from optkit.tasks.base import Feed, TaskKind

if TYPE_CHECKING:
    from optkit.compression.quantize import Quantize, Weights

Forward = Callable[[PreTrainedModel], None]
Groups = dict[str, set[str]]


def insert(model: PreTrainedModel, stage: "Quantize", kept: Collection[str] = ()) -> None:
    """Give every Linear of the encoder an input and a weight quantiser, not calibrated yet; clip GELU if asked to.

    Args:
        model: changed in place.
        stage: with the settings.
        kept: names of Linear modules that stay float.

    Raises:
        InputError: the stage has mistakes, or the model has no Linear that can be quantised, or no GELU to clip.
    """
    stage.checked()
    if stage.gelu_clip is not None:
        clip_gelu(model, stage.gelu_clip)
    linears = encoder_linears(model)
    if not linears:
        raise InputError(
            f"{type(model).__name__} has no Linear modules in its encoder's layers (such as SqueezeBERT, whose products are "
            "convolutions): there is nothing to quantize. Run its baseline alone, or choose another encoder"
        )
    with redirect_stdout(io.StringIO()), warnings.catch_warnings(), _linears_alone():
        warnings.simplefilter("ignore")  # it announces each model, and under several processes each kind of module
        mtq.quantize(
            model,
            {"quant_cfg": _placement([name for name in linears if name not in kept], stage.weights), "algorithm": None},
        )
    for name, quantiser in quantisers(model).items():
        if stage.calibrator in METHODS and name.endswith("input_quantizer"):
            quantiser._calibrator = HistogramCalibrator(stage.calibrator, stage.percentile)


@contextmanager
def _linears_alone() -> Iterator[None]:
    """Keep Model Optimizer from rewriting attention for a quantised cache, which encoders lack and RoFormer's does not
    survive."""
    kept = set(CUSTOM_MODEL_PLUGINS)
    CUSTOM_MODEL_PLUGINS.clear()
    try:
        yield
    finally:
        CUSTOM_MODEL_PLUGINS.update(kept)


def calibrate(model: PreTrainedModel, forward: Forward) -> list[str]:
    """Set every amax from the batches that `forward` runs through the model, one at a time. Weights with a single scale that
    read the same tensor get the same.

    Returns:
        Names of Linear modules that the model never called, such as those of LUKE for entities: they stay float.

    Raises:
        InputError: a quantiser has seen no value other than zero, or one that is not finite.
    """
    model.eval()
    linears, called = quantised_linears(model), set[str]()
    with torch.no_grad(), reading_the_same(linears) as groups, _watching(linears, lambda name, _: called.add(name)):
        try:
            mtq.calibrate(model, "max", forward)
        except (FloatingPointError, AssertionError) as error:  # of our calibrators, and of Model Optimizer's
            raise InputError(
                f"an activation is not finite while calibrating ({error}); look for weights that "
                "are NaN or infinite, or train with a lower learning rate"
            ) from error
    for group in groups.values():
        _share_scale([model.get_submodule(f"{name}.weight_quantizer") for name in group])
    uncalled = [name for name in linears if called and name not in called]
    quantised = by_linear(model)
    for quantiser in [quantiser for name in uncalled for quantiser in quantised[name]]:
        quantiser.disable()
        quantiser.reset_amax()
    check(model)
    return uncalled


def same_inputs(model: PreTrainedModel, feed: Feed) -> Groups:
    """Return for each quantised Linear the names of those that read the same tensor, itself among them."""
    with torch.no_grad(), reading_the_same(quantised_linears(model)) as groups:
        model(**{name: torch.from_numpy(array).to(model.device) for name, array in feed.items()})
    return groups


def least_divergence(model: PreTrainedModel, feeds: Iterable[Feed], task: TaskKind, groups: Groups) -> None:
    """Set the amax of each Linear's input, the largest absolute value until now, to that of least divergence."""
    linears: dict[str, Any] = {name: model.get_submodule(name) for name in groups}
    largest = {name: float(linear.input_quantizer.amax) for name, linear in linears.items()}
    with _computing_in_float(model):
        found = best_amax(model, feeds, task, groups, largest)
    for name, linear in linears.items():
        linear.input_quantizer.amax = torch.tensor(found[name], device=model.device)


def with_same_scale(model: PreTrainedModel, feed: Feed) -> list[list[TensorQuantizer]]:
    """Return all quantisers, those that have the same scale together: of inputs of the same tensor, and of their weights
    where these have a single scale."""
    found: dict[object, list[TensorQuantizer]] = {}
    for name, group in same_inputs(model, feed).items():
        linear: Any = model.get_submodule(name)
        found.setdefault(("input", min(group)), []).append(linear.input_quantizer)
        shared = linear.weight_quantizer.axis is None
        found.setdefault(("weight", min(group) if shared else name), []).append(linear.weight_quantizer)
    return list(found.values())


@contextmanager
def _computing_in_float(model: PreTrainedModel) -> Iterator[None]:
    enabled = list(quantisers(model).values())
    for quantiser in enabled:
        quantiser.disable()
    try:
        yield
    finally:
        for quantiser in enabled:
            quantiser.enable()


@contextmanager
def reading_the_same(linears: Mapping[str, torch.nn.Linear]) -> Iterator[dict[str, set[str]]]:
    """Watch which Linear modules read the same tensor, such as query, key and value; gives the names by each one's name."""
    groups = {name: {name} for name in linears}
    seen: dict[str, weakref.ref[torch.Tensor]] = {}

    def watch(name: str, tensor: torch.Tensor) -> None:
        for other, read in seen.items():
            if read() is tensor and other not in groups[name]:
                joined = groups[name] | groups[other]
                groups.update(dict.fromkeys(joined, joined))
        seen[name] = weakref.ref(tensor)

    with _watching(linears, watch):
        yield groups


@contextmanager
def _watching(linears: Mapping[str, torch.nn.Linear], watch: Callable[[str, torch.Tensor], object]) -> Iterator[None]:
    """Call `watch` with the name and the input of each Linear module that is called."""
    hooks = [
        linear.register_forward_pre_hook(lambda _, given, name=name: watch(name, given[0]))
        for name, linear in linears.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _share_scale(weights: "Sequence[TensorQuantizer]") -> None:
    """Give quantisers with a single scale each the largest of them."""
    if all(quantiser.amax is not None and quantiser.axis is None for quantiser in weights):
        largest = torch.stack([quantiser.amax for quantiser in weights]).max()
        for quantiser in weights:
            quantiser.amax = largest


def load_amax(model: PreTrainedModel, amax: Mapping[str, torch.Tensor]) -> None:
    """Take scales from elsewhere, `{quantiser's name: amax}`: a scalar, or [out] or [out, 1] for weights.

    Raises:
        InputError: naming every quantiser of the model without a scale, and every scale of another shape.
    """
    mistakes = []
    for name, quantiser in quantisers(model).items():
        value = amax.get(name)
        expected = 1 if quantiser.axis is None else _channels(model, name)
        if value is None:
            mistakes.append(f"{name}: no scale")
        elif value.numel() != expected:
            mistakes.append(f"{name}: {value.numel()} scales, expected {expected}{_other_weights(value.numel(), expected)}")
        else:
            quantiser.amax = value.float().reshape(-1, 1) if expected > 1 else value.float().reshape(())
    if mistakes:
        raise InputError("the checkpoint's scales do not fit the model:\n  - " + "\n  - ".join(mistakes))
    check(model)


def check(model: PreTrainedModel) -> None:
    """The technique's invariant: every enabled quantiser has a finite, positive amax.

    Raises:
        InputError: naming every quantiser that has not.
    """
    bad = [name for name, quantiser in quantisers(model).items() if not _is_calibrated(quantiser)]
    if bad:
        raise InputError(
            f"{len(bad)} quantisers have no finite, positive amax: {', '.join(bad[:5])}; "
            "calibrate with more examples, or look for layers whose weights or inputs are all zero or not finite"
        )


def quantisers(model: PreTrainedModel) -> dict[str, TensorQuantizer]:
    """The enabled quantisers by name."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, TensorQuantizer) and module.is_enabled
    }


def quantised_linears(model: PreTrainedModel) -> dict[str, torch.nn.Linear]:
    """Return the Linear modules of the encoder that have quantisers, by name."""
    quantised = by_linear(model)
    return {name: linear for name, linear in encoder_linears(model).items() if name in quantised}


def by_linear(model: PreTrainedModel) -> dict[str, list[TensorQuantizer]]:
    """Return the enabled quantisers of each Linear that has some."""
    found = dict[str, list[TensorQuantizer]]()
    for name, quantiser in quantisers(model).items():
        found.setdefault(name.rpartition(".")[0], []).append(quantiser)
    return found


def round_embeddings(model: PreTrainedModel) -> None:
    """Move the word embeddings onto an INT8 grid with one scale per word, so that the graph can store them in a quarter.

    A word's row [hidden] keeps its largest value exactly; the others move by at most 1/254 of it.
    """
    table = word_embeddings(model)
    with torch.no_grad():
        scale = (table.abs().amax(1, keepdim=True) / INT8_MAX).clamp_min(torch.finfo(table.dtype).tiny)
        table.copy_(torch.round(table / scale) * scale)


def _other_weights(found: int, expected: int) -> str:
    """How to take scales that were made for the other kind of weights."""
    kind = "per_tensor" if found == 1 else "per_channel"
    return f'; take them with Quantize(weights="{kind}")' if 1 in (found, expected) else ""


def _placement(linears: Collection[str], weights: "Weights") -> list[dict]:
    """Model Optimizer's ordered list: everything off, then some Linear modules on, by name."""
    axis = 0 if weights == "per_channel" else None
    entries: list[dict] = [{"quantizer_name": "*", "enable": False}]
    for name in linears:
        entries.append({"quantizer_name": f"{name}.weight_quantizer", "cfg": {"num_bits": 8, "axis": axis}})
        entries.append({"quantizer_name": f"{name}.input_quantizer", "cfg": {"num_bits": 8, "axis": None}})
    return entries


def _channels(model: PreTrainedModel, quantiser: str) -> int:
    return model.get_submodule(quantiser.rpartition(".")[0]).out_features  # type: ignore[return-value]


def _is_calibrated(quantiser: TensorQuantizer) -> bool:
    amax = quantiser.amax
    return amax is not None and bool(torch.isfinite(amax).all()) and bool((amax >= 0).all()) and bool(amax.max() > 0)
