"""GELU bounded above, so that few large activations do not take the whole INT8 range."""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.activations import GELUActivation

from optkit.core.errors import InputError
from optkit.models.families import activation, depth, layers_of


class ClippedGELU(nn.Module):
    """GELU bounded above: GeLU10 for `clip=10` (Wu et al. 2020, arXiv 2004.09602, section 5)."""

    def __init__(self, clip: float) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.clamp(nn.functional.gelu(hidden), max=self.clip)


def clip_gelu(model: PreTrainedModel, clip: float) -> int:
    """Bound the GELU between the two feed-forward products of every layer; returns how many were replaced.

    Raises:
        InputError: where the model has no GELU in its feed-forward blocks.
    """
    number, blocks = layers_of(model).number, depth(model.config)
    gelus = [name for name, module in model.named_modules() if type(module) is GELUActivation]
    names = [name for name in gelus if number(name) is not None]
    if not blocks or len(names) != blocks:
        raise InputError(
            f"gelu_clip={clip:g}: {type(model).__name__} has hidden_act {activation(model.config)!r} in {blocks} "
            "feed-forward blocks; expected a GELU ('gelu') in each. Leave gelu_clip out for this model"
        )
    for name in names:
        model.set_submodule(name, ClippedGELU(clip))
    return blocks
