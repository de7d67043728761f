"""A trial before any training: a tiny random model of the same architecture is exported, compared and audited."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import PreTrainedModel

from optkit.core.errors import InputError
from optkit.graph.audit import audit
from optkit.graph.export import export
from optkit.graph.logits import example, input_names
from optkit.models import families
from optkit.models.tiny_copy import LENGTH, tiny_copy
from optkit.tasks.base import TaskKind

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


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
    with tempfile.TemporaryDirectory(prefix="optkit-trial-") as folder:
        length = min(LENGTH, families.longest_input(model) or LENGTH)
        if quantised:
            _quantise(model, length)
        graph = export(model, Path(folder), length, task)
        if quantised:
            audit(graph).check_quantised()


def _random_model(config: "PreTrainedConfig", task: TaskKind) -> PreTrainedModel:
    """Return a tiny model with weights large enough that every part of it moves the logits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        try:
            model: PreTrainedModel = task.auto_class().from_config(tiny_copy(config)).eval()
        except (ValueError, AssertionError, RuntimeError) as error:  # of the family's code, where sizes do not go together
            raise InputError(f"a tiny copy of model type {config.model_type!r} cannot be made: {error}") from error
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=module.weight.shape[1] ** -0.5)
    return model


def _quantise(model: PreTrainedModel, length: int) -> None:
    from optkit.compression import quantizers
    from optkit.compression.quantize import Quantize

    feed = example(model, input_names(model), 4, length)
    quantizers.insert(model, Quantize())
    quantizers.calibrate(model, lambda quantised: quantised(**feed))
