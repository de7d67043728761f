"""A trial before any training: a tiny random model of the same architecture is exported, compared and audited."""

from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import PreTrainedModel

from optkit.core import temporary
from optkit.core.errors import InputError
from optkit.graph.audit import audit
from optkit.graph.export import export
from optkit.graph.logits import example, input_names
from optkit.models import families
from optkit.models.tiny_copy import LENGTH, tiny_copy
from optkit.tasks.base import TaskKind

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_UNMOVED = 1e-3
"""Largest change of the logits by padding, relative to the largest of them: what float32 rounds otherwise."""


def trial_export(config: "PreTrainedConfig", task: TaskKind, quantised: bool = False) -> None:
    """Export a tiny random model of an architecture, and raise where that does not work.

    Args:
        config: configuration of the model that is to be exported later, with the task's labels.
        task: whose head the model has.
        quantised: quantise the encoder's Linear modules first, and audit the graph.

    Raises:
        InputError: the architecture cannot be exported, computes something else as a graph, or cannot be quantised.
    """
    families.check(config)
    model = _random_model(config, task)
    families.check_model(model)
    length = min(LENGTH, families.longest_input(model) or LENGTH)
    _check_padding(model, length, task)
    with temporary.folder("optkit-trial") as folder:
        if quantised:
            _quantise(model, length)
        graph = export(model, folder, length, task)
        if quantised:
            audit(graph).check_quantised()


def _random_model(config: "PreTrainedConfig", task: TaskKind) -> PreTrainedModel:
    """Return a tiny model with weights large enough that every part of it moves the logits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        try:
            model: PreTrainedModel = task.auto_class().from_config(tiny_copy(config)).eval()
            families.prepare(model)
        except (ValueError, AssertionError, RuntimeError) as error:  # of the family's code, where sizes do not go together
            raise InputError(f"a tiny copy of model type {config.model_type!r} cannot be made: {error}") from error
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=module.weight.shape[1] ** -0.5)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.weight.data[module.padding_idx] = 0  # as it is kept by training
    return model


def _check_padding(model: PreTrainedModel, length: int, task: TaskKind) -> None:
    """Raise `InputError` where the answer to a text depends on how much padding follows it."""
    padded = example(model, input_names(model), 2, length)
    mask = padded["attention_mask"].clone()
    mask[:, length // 2 :] = 0
    padded["input_ids"] = padded["input_ids"].masked_fill(mask == 0, getattr(model.config, "pad_token_id", None) or 0)
    padded["attention_mask"] = mask
    ends = (length // 2, length)
    with torch.no_grad():
        outputs = [model(**{name: given[:, :end] for name, given in padded.items()}) for end in ends]
    alone, beside = (task.unpadded(task.logits(output), mask[:, :end]) for output, end in zip(outputs, ends, strict=True))
    moved = float((alone - beside).abs().max() / alone.abs().max())
    if moved > _UNMOVED:
        raise InputError(
            f"{type(model).__name__} is not supported: padding moves its logits by {moved:.1%}, so that a text would be "
            "answered otherwise beside a longer one; choose another encoder"
        )


def _quantise(model: PreTrainedModel, length: int) -> None:
    from optkit.compression import quantizers
    from optkit.compression.quantize import Quantize

    feed = example(model, input_names(model), 4, length)
    quantizers.insert(model, Quantize())
    quantizers.calibrate(model, lambda quantised: quantised(**feed))
