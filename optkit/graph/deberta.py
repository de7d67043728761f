"""DeBERTa's attention in a form that traces well, for the time of an export; it computes the same numbers.

transformers' own is made of scripted functions, whose branches become `If`, and computes the buckets of relative positions
by logarithms, whose last bit differs between runtimes. Here buckets are read from a table that transformers' own function
fills, by indices made once for all layers, and padding is a number added to the scores.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from optkit.graph.attention_mask import additive


class Relative(NamedTuple):
    """Rows of the relative embeddings for each query and key, [1, 1, sequence, sequence]."""

    to_key: torch.Tensor
    """Row that the query at a place meets for the key at another ("c2p")."""
    to_query: torch.Tensor
    """Row that the key at a place meets for the query at another ("p2c")."""
    first: torch.Tensor | int
    """First row that is read; the two above count from it."""
    last: torch.Tensor | int
    """Row after the last that is read."""


@contextmanager
def traceable(model: nn.Module, positions: torch.Tensor) -> Iterator[None]:
    """Let DeBERTa's attention blocks of a model compute in the form above; other models stay as they are.

    Args:
        model: a model with or without such blocks.
        positions: position ids [1, longest], of which a graph slices what it needs.
    """
    norms: list[Any] = [module for module in model.modules() if type(module).__name__ == "DebertaLayerNorm"]
    blocks: list[Any] = [module for module in model.modules() if hasattr(module, "pos_att_type")]
    encoders: list[Any] = [module for module in model.modules() if hasattr(module, "get_rel_pos")] if blocks else []
    for encoder in encoders:
        encoder.get_attention_mask = additive
        encoder.get_rel_pos = partial(_relative, blocks[0], positions)
    for block in blocks:
        block.forward = partial(_attention, block)
    for norm in norms:
        norm.forward = partial(_layer_norm, norm)
    try:
        yield
    finally:
        for encoder in encoders:
            del encoder.get_attention_mask, encoder.get_rel_pos
        for module in (*blocks, *norms):
            del module.forward


def _layer_norm(norm: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Replace the `forward` of version 1's own LayerNorm, so that it becomes one operator."""
    return nn.functional.layer_norm(hidden, norm.weight.shape, norm.weight, norm.bias, norm.variance_epsilon)


def _relative(block: Any, positions: torch.Tensor, hidden: torch.Tensor, *more: Any) -> Relative | None:
    """Replace the encoder's `get_rel_pos`."""
    if not block.relative_attention:
        return None
    sequence, longest = hidden.shape[1], positions.shape[1]
    own = positions[:, :sequence]
    distance = own[:, None, :, None] - own[:, None, None, :]
    if hasattr(block, "position_buckets"):  # versions 2 and 3
        table = _buckets(block, longest)
        index, span, first = table[distance + (longest - 1)], block.pos_ebd_size, 0
    else:
        # version 1 reads no more rows than the sequence is long
        span = sequence if longest <= block.max_relative_positions else block.max_relative_positions
        index, first = distance, block.max_relative_positions - span
    rows = ((index + span), (-index + span))
    if hasattr(block, "position_buckets") or longest > block.max_relative_positions:
        rows = tuple(row.clamp(0, 2 * span - 1) for row in rows)
    return Relative(*rows, first, first + 2 * span)


def _buckets(block: Any, longest: int) -> torch.Tensor:
    """Return the bucket of each distance from `1 - longest` to `longest - 1`."""
    from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position

    states = torch.empty(1, longest, 1)
    table: torch.Tensor = build_relative_position(states, states, block.position_buckets, block.max_relative_positions)[0]
    return torch.cat([table[0].flip(0), table[1:, 0]])


def _attention(
    block: Any,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor,
    output_attentions: bool = False,
    query_states: None = None,
    relative_pos: Relative | None = None,
    rel_embeddings: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Replace the `forward` of `DisentangledSelfAttention`, of all versions."""
    query, key, value = _vectors(block, hidden_states)
    scale = (query.shape[-1] * (1 + sum(kind in block.pos_att_type for kind in ("c2p", "p2c")))) ** 0.5
    scores = query @ (key.transpose(-1, -2) / scale)
    if relative_pos is not None and rel_embeddings is not None:
        rows = rel_embeddings[relative_pos.first : relative_pos.last][None]
        for kind, states, index in (("c2p", query, relative_pos.to_key), ("p2c", key, relative_pos.to_query)):
            if kind in block.pos_att_type:
                met = states @ _heads(block, _projection(block, kind)(rows)).transpose(-1, -2)
                met = met.gather(-1, index.expand(*met.shape[:3], index.shape[-1])) / scale
                scores = scores + (met if kind == "c2p" else met.transpose(-1, -2))
    logits, weights = getattr(block, "head_logits_proj", None), getattr(block, "head_weights_proj", None)
    scores = _talk(logits, scores) + attention_mask
    probabilities = _talk(weights, scores.softmax(-1))
    return (probabilities @ value).transpose(1, 2).flatten(2), None


def _vectors(block: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return queries, keys and values [batch, heads, sequence, head size]."""
    if not hasattr(block, "in_proj"):
        return tuple(
            _heads(block, projection(hidden)) for projection in (block.query_proj, block.key_proj, block.value_proj)
        )
    query, key, value = _heads(block, block.in_proj(hidden)).chunk(3, dim=-1)
    biases = (_heads(block, bias[None, None]) for bias in (block.q_bias, block.v_bias))
    return query + next(biases), key, value + next(biases)


def _heads(block: Any, states: torch.Tensor) -> torch.Tensor:
    """[batch, sequence, channels] → [batch, heads, sequence, head size]."""
    size = states.shape[-1] // block.num_attention_heads
    return states.view(*states.shape[:2], block.num_attention_heads, size).transpose(1, 2)


def _projection(block: Any, kind: str) -> nn.Module:
    """Return the Linear module that relative embeddings pass for queries to meet them ("c2p"), or keys ("p2c")."""
    names = ("key_proj",) if getattr(block, "share_att_key", False) else ("pos_proj", "pos_key_proj")
    if kind == "p2c":
        names = ("query_proj",) if getattr(block, "share_att_key", False) else ("pos_q_proj", "pos_query_proj")
    found: nn.Module = next(getattr(block, name) for name in names if hasattr(block, name))
    return found


def _talk(projection: nn.Module | None, scores: torch.Tensor) -> torch.Tensor:
    """Mix the heads of [batch, heads, query, key], where the model does."""
    if projection is None:
        return scores
    mixed: torch.Tensor = projection(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return mixed
