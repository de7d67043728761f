"""A tiny version of an encoder's configuration, so that its architecture can be tried in seconds."""

import copy
from typing import TYPE_CHECKING, Any

from optkit.models import families

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

WIDTH, HEADS, WORDS, LENGTH, WINDOW = 64, 4, 128, 64, 8
"""Hidden size, attention heads, vocabulary, tokens and local window of a tiny copy, each at most."""
_MULTIPLE = 16
"""Sizes are multiples of this: heads divide them, and 2:4 sparsity takes them."""
_SPECIAL = ("_token_id", "_index", "_id")
"""Ends of the configuration fields that hold the id of a special token."""


def tiny_copy(config: "PreTrainedConfig") -> "PreTrainedConfig":
    """Return a configuration of the same architecture with few layers, small widths and tables.

    Each kind of layer appears, local windows are shorter than the longest input, and special tokens keep apart.

    Args:
        config: configuration of an encoder; stays as it is.

    Raises:
        InputError: the configuration has no field with its depth, its width or its heads.
    """
    made, family, own = copy.deepcopy(config), families.family_of(config), config.to_dict()
    _resize(made, own, families.width(config), (*family.width, *family.inner))
    _set(made, family.depth, _layers(config))
    group = families.heads(config) // families.key_heads(config)
    _set(made, family.heads, min(HEADS, families.heads(config)))
    if own.get(family.key_heads[0]):
        setattr(made, family.key_heads[0], max(1, families.heads(made) // group))
    _shrink_words(made, own)
    first = (getattr(made, "pad_token_id", None) or 0) + 1  # of the families that count positions from the padding's id
    _shrink(made, own, family.positions, LENGTH + first)
    _shrink(made, own, family.windows, WINDOW)
    return made


def _layers(config: "PreTrainedConfig") -> int:
    """Return the number of layers after which each kind has appeared; two at least."""
    depth, kinds = families.depth(config), families.layer_kinds(config)
    kinds_seen = 1 + max((kinds.index(kind) for kind in set(kinds)), default=0)
    return min(depth, max(2, kinds_seen, getattr(config, "num_hidden_groups", 1)))


def _resize(made: "PreTrainedConfig", own: dict[str, Any], width: int, names: tuple[str, ...]) -> None:
    """Scale all sizes that are present by the ratio that makes the width tiny, to multiples of 16."""
    for name in names if width > WIDTH else ():
        if isinstance(own.get(name), int):
            setattr(made, name, max(1, round(own[name] * WIDTH / width / _MULTIPLE)) * _MULTIPLE)


def _set(made: "PreTrainedConfig", names: tuple[str, ...], value: int) -> None:
    """Set the field of the first name that is present."""
    setattr(made, next(name for name in names if getattr(made, name, None) is not None), value)


def _shrink(made: "PreTrainedConfig", own: dict[str, Any], names: tuple[str, ...], most: int) -> None:
    """Bound all fields of these names that are present."""
    for name in names:
        if isinstance(own.get(name), int) and own[name] > most:
            setattr(made, name, most)


def _shrink_words(made: "PreTrainedConfig", own: dict[str, Any]) -> None:
    """Shrink the vocabulary, and move the special tokens that would be outside of it to ids that no other has."""
    if own["vocab_size"] <= WORDS:
        return
    made.vocab_size = WORDS
    special = {name: own[name] for name in own if name.endswith(_SPECIAL) and isinstance(own[name], int)}
    free = (token for token in range(WORDS) if token not in special.values())
    moved = {token: next(free) for token in sorted(set(special.values())) if token >= WORDS}
    for name, token in special.items():
        setattr(made, name, moved.get(token, token))
