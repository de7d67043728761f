"""Rotary position embeddings as tables, for the time of an export.

transformers computes sines and cosines from position ids in every call. As tables they cost nothing at run time, and keep
their precision where the rest of a graph is in 16 bits, whose products of positions and frequencies would be off by radians.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

_FIXED = {"default", "linear", "yarn", "llama3"}
"""Kinds of rotary embeddings that are the same at every length of the input."""
Tables = Mapping[str | None, tuple[torch.Tensor, ...]]
"""Cosines and sines [1, longest, channels] for each kind of layer; under None where there is one."""


def tables(model: nn.Module, positions: torch.Tensor) -> dict[nn.Module, Tables]:
    """Return the tables of each module of rotary embeddings.

    Args:
        model: a model with or without them.
        positions: position ids [1, longest].
    """
    found: dict[nn.Module, Tables] = {}
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        by_layer = kinds if isinstance(kinds, dict) else {None: kinds}
        if kinds and {*by_layer.values()} <= _FIXED:
            found[module] = {layer: _table(module, positions, layer) for layer in by_layer}
    return found


@contextmanager
def traceable(found: Mapping[nn.Module, Tables]) -> Iterator[None]:
    """Let modules of rotary embeddings read their tables."""
    changed: list[Any] = list(found)
    for module in changed:
        module.forward = partial(_read, found[module])
    try:
        yield
    finally:
        for module in changed:
            del module.forward


def _table(module: nn.Module, positions: torch.Tensor, layer: str | None) -> tuple[torch.Tensor, ...]:
    more = () if layer is None else (layer,)
    with torch.no_grad():
        return tuple(table.clone() for table in module(torch.zeros(1), positions, *more))


def _read(own: Tables, hidden: torch.Tensor, position_ids: Any = None, layer_type: str | None = None) -> tuple[Any, ...]:
    """Replace `forward`: the rows for hidden states [batch, sequence, channels]."""
    return tuple(table[:, : hidden.shape[1]] for table in own[layer_type])
