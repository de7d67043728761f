"""How a model is given its attention mask while its graph is traced.

Most models take the numbers that are added to attention's scores in place of a mask of ones and zeros, which keeps
transformers' own mask code, much of it shape arithmetic, out of the graph. Where a head reads the mask too, as those that
average tokens, only the encoder inside takes them; where layers of several kinds see different tokens, it takes numbers for
each kind. A model that takes none of them gets its mask as it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from transformers import PreTrainedModel

from optkit.graph.passes import MASKED
from optkit.models.families import layer_kinds

Form = Literal["added", "inside", "plain"]
FORMS: tuple[Form, ...] = ("added", "inside", "plain")


def additive(mask: torch.Tensor) -> torch.Tensor:
    """Return the numbers [batch, 1, 1, sequence] that are added to scores for a mask [batch, sequence]."""
    return (1.0 - mask[:, None, None, :].to(torch.float32)) * MASKED


@contextmanager
def inside(model: PreTrainedModel, mask: torch.Tensor, positions: torch.Tensor) -> Iterator[None]:
    """Give the encoder inside a model additive numbers where the model passes on its mask.

    Args:
        model: a model with a head.
        mask: ones and zeros [batch, sequence].
        positions: position ids [1, sequence].
    """
    added = _by_kind(model.config, additive(mask), positions)

    def replace(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "attention_mask": added}

    handle = model.base_model.register_forward_pre_hook(replace, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _by_kind(config: Any, mask: torch.Tensor, positions: torch.Tensor) -> Any:
    """Return the numbers for each kind of layer, where there are several; a local window hides tokens beyond it."""
    kinds = set(layer_kinds(config))
    if "sliding_attention" not in kinds:
        return mask
    distance = (positions[:, :, None] - positions[:, None, :]).abs()
    local = mask + (distance > config.sliding_window).to(torch.float32)[:, None] * MASKED
    return {kind: local if kind == "sliding_attention" else mask for kind in kinds}
