"""GELU bounded above, so that few large activations do not take the whole INT8 range."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn.functional import gelu
from transformers import PreTrainedModel
from transformers.activations import FastGELUActivation, GELUActivation, GELUTanh, NewGELUActivation

from optkit.core.errors import InputError
from optkit.models.families import activation, encoder_layers, layers_of

_tanh = partial(gelu, approximate="tanh")
_GELUS: dict[type, Callable[[torch.Tensor], torch.Tensor]] = {
    GELUActivation: gelu,
    nn.GELU: gelu,
    GELUTanh: _tanh,
    NewGELUActivation: _tanh,
    FastGELUActivation: _tanh,
}


class ClippedGELU(nn.Module):
    """GELU bounded above: GeLU10 for `clip=10` (Wu et al. 2020, arXiv 2004.09602, section 5)."""

    def __init__(self, clip: float, function: Callable[[torch.Tensor], torch.Tensor] = gelu) -> None:
        super().__init__()
        self.clip, self.function = clip, function

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.clamp(self.function(hidden), max=self.clip)


def clip_gelu(model: PreTrainedModel, clip: float) -> int:
    """Bound the GELU between the feed-forward products of every layer; returns how many were replaced.

    In a gated feed-forward that is the GELU of the gate, before it is multiplied.

    Raises:
        InputError: where a layer of the model has no GELU in its feed-forward block.
    """
    number, blocks = layers_of(model).number, len(encoder_layers(model))
    # one module may stand in all layers
    parts = dict(model.named_modules(remove_duplicate=False))
    gelus = {name: part for name, part in parts.items() if type(part) in _GELUS and number(name) is not None}
    if not blocks or len({number(name) for name in gelus}) != blocks:
        raise InputError(
            f"gelu_clip={clip:g}: {type(model).__name__} has hidden_act {activation(model.config)!r} in {blocks} "
            "feed-forward blocks; expected a GELU ('gelu') in each. Leave gelu_clip out for this model"
        )
    for name, part in gelus.items():
        tanh = isinstance(part, nn.GELU) and part.approximate == "tanh"
        model.set_submodule(name, ClippedGELU(clip, _tanh if tanh else _GELUS[type(part)]))
    return len(gelus)
