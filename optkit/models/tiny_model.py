"""A tiny random model of an architecture, by which in a moment is known what the architecture can do."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from optkit.core.errors import InputError
from optkit.models import families
from optkit.models.tiny_copy import tiny_copy
from optkit.tasks.base import TaskKind

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def tiny_model(config: "PreTrainedConfig", task: TaskKind) -> "PreTrainedModel":
    """Return a tiny model with weights large enough that every part of it moves the logits.

    Raises:
        InputError: no model of such sizes can be made.
    """
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
