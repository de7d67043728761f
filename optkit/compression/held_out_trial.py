"""What trainings share that are judged on training examples held out from them."""

from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from optkit.compression.context import Context
from optkit.tasks.base import Task
from optkit.tasks.held_out import held_out


def parted(context: Context, share: float = 0.1, most: int = 2000, seed: int = 0) -> tuple[Context, Context]:
    """Return the contexts to learn from and to judge by; texts without labels are for learning alone.

    Args:
        context: of the stage.
        share, most, seed: of what is held out, see `held_out`.

    Raises:
        InputError: the training examples cannot be parted.
    """
    rest, held = held_out(cast(Task, context.task), context.features, share, most, seed)
    return context.part(rest.tolist()), replace(context.part(held.tolist()), unlabelled=None)


def weights(model: nn.Module) -> dict[str, Any]:
    """Return a copy of a model's state, to be given back."""
    return {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in model.state_dict().items()}
