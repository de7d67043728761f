"""What differs between model families: where the layers are, which Linear is which, positions, names of sizes."""

import re
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from optkit.models import two_to_four


def _activation(model: PreTrainedModel) -> str | None:
    return getattr(model.config, "hidden_act", getattr(model.config, "activation", None))  # DistilBERT's word for it


def layer_index(name: str) -> int | None:
    """The encoder layer that a module or tensor of this name belongs to, from 0; None outside of the layers."""
    found = re.search(r"\.layers?\.(\d+)\.", name)
    return int(found[1]) if found else None


def _in_a_layer(name: str) -> bool:
    return layer_index(name) is not None


def encoder_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The Linear modules of the encoder's layers by name; pooler, classifier and embeddings are not among them."""
    return {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear) and _in_a_layer(name)}


def prunable(model: nn.Module) -> dict[str, nn.Linear]:
    """Those of `encoder_linears` that the hardware can take as 2:4."""
    return {name: linear for name, linear in encoder_linears(model).items() if two_to_four.fits(linear.weight)}


def word_embeddings(model: PreTrainedModel) -> torch.Tensor:
    """The table of word embeddings [words, width]."""
    return cast(nn.Embedding, model.get_input_embeddings()).weight


def first_position(model: PreTrainedModel) -> int:
    """The position id of the first token: RoBERTa and its kin count from the padding id onwards."""
    embeddings = getattr(model.base_model, "embeddings", None)
    offset = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    return 0 if offset is None else offset + 1


def longest_input(model: PreTrainedModel) -> int | None:
    """How many tokens the model has positions for, or None where it has no table of them."""
    table = getattr(model.config, "max_position_embeddings", None)
    return None if table is None else int(table) - first_position(model)
