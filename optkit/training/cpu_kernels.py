"""Training on a CPU, where torch's own kernels are slow: attention, dropout, and memory taken from the system anew.

None of the three changes what is computed but for rounding and the random numbers drawn.
"""

import ctypes
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_ATTENTION = "optkit_cpu_training"
_LEVELS = 1 << 15  # of the random numbers that decide what dropout keeps
_ONE = 0x3F80  # bits of 1 in bf16
_NEVER = -1e4  # a score whose weight is 0
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # mallopt(3)


@contextmanager
def fast(module: nn.Module) -> Iterator[None]:
    """The models within a module trained by faster kernels; as they were when the block ends.

    Args:
        module: on the CPU; itself a model of transformers, or one that holds several.
    """
    with ExitStack() as stack:
        for part in module.modules():
            if isinstance(part, PreTrainedModel) and part.config._attn_implementation == "sdpa":
                stack.enter_context(_attention(part))
        stack.enter_context(_dropout(module))
        stack.enter_context(_memory_kept())
        yield


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers' `AttentionInterface` has it, for training.

    Without dropout it is torch's fused kernel in float32: its backward in bf16 takes three times as long. With dropout,
    which that kernel has not, the products are taken one by one. What is more than plain attention is left to transformers.

    Args:
        module: whose attention it is.
        query, key, value: [batch, heads, sequence, head size].
        attention_mask: bool [batch, 1, sequence, sequence], True where a token is seen; None sees all.
        scaling: of the scores; None is 1 / √(head size).
        dropout: probability of leaving an attention weight out.
        more: what some models have besides, such as a bias of positions.

    Returns:
        [batch, sequence, heads, head size], in the query's type, and no weights.
    """
    plain = _is_plain(module, query, key, attention_mask, more)
    if dropout and plain:
        mixed = _with_dropout(query, key, value, attention_mask, scaling or 1 / math.sqrt(query.shape[-1]), dropout)
        return mixed.transpose(1, 2).contiguous(), None
    kind = torch.float32 if plain and torch.is_grad_enabled() else query.dtype
    with torch.autocast("cpu", enabled=False):
        mixed, _ = sdpa_attention_forward(
            module, query.to(kind), key.to(kind), value.to(kind), attention_mask, dropout=dropout, scaling=scaling, **more
        )
    return mixed.to(query.dtype), None


def _is_plain(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, more: Mapping[str, Any]
) -> bool:
    """Whether every head has its own keys, and nothing but the mask says what a token sees."""
    causal = more.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    return more.get("position_bias") is None and query.shape[1] == key.shape[1] and not (causal and mask is None)


def drop(values: torch.Tensor, probability: float) -> torch.Tensor:
    """Dropout with 15 random bits for each value and integer arithmetic, instead of one random float32 after the other.

    Args:
        values: of any shape.
        probability: of a value becoming 0, rounded to 1/32768; the others are scaled up by 1 / (1 - probability).
    """
    return (values * _kept(values.shape, probability).to(values.dtype)).mul_(1 / (1 - probability))


class FastDropout(nn.Dropout):
    """`nn.Dropout` by `drop`."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return drop(hidden, self.p) if self.training and 0 < self.p < 1 else super().forward(hidden)


def _with_dropout(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    probability: float,
) -> torch.Tensor:
    scores = (query * scaling) @ key.transpose(2, 3)  # [batch, heads, sequence, sequence]
    if mask is not None:
        scores += (~mask).to(scores.dtype) * _NEVER
    with torch.autocast("cpu", enabled=False):
        weights = functional.softmax(scores, dim=-1)  # sums in float32, whatever the type
        kept = weights * _kept(weights.shape, probability).to(weights.dtype)
    return kept @ (value / (1 - probability))


def _kept(shape: torch.Size, probability: float) -> torch.Tensor:
    """bf16 ones where a value is kept, and zeros."""
    words = -(-shape.numel() // 4)
    drawn = torch.empty(words, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[: shape.numel()].view(shape)
    above = (drawn & (_LEVELS - 1)).sub_(round(probability * _LEVELS))  # negative where it is dropped
    return above.bitwise_right_shift_(15).bitwise_not_().bitwise_and_(_ONE).view(torch.bfloat16)


@contextmanager
def _attention(model: PreTrainedModel) -> Iterator[None]:
    AttentionInterface.register(_ATTENTION, attention)
    AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(_ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def _dropout(module: nn.Module) -> Iterator[None]:
    """Every dropout replaced by a fast one of the same probability."""
    places = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Dropout
    ]
    for parent, name, child in places:
        setattr(parent, name, FastDropout(child.p).train(child.training))
    try:
        yield
    finally:
        for parent, name, child in places:
            setattr(parent, name, child)


@contextmanager
def _memory_kept() -> Iterator[None]:
    """Freed memory stays with the process: each step asks for the same tensors again, and pages that come from the system
    anew are zeroed and mapped one by one. Does nothing where the C library is not glibc."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, ctypes.c_int(2**31 - 1))
    try:
        yield
    finally:
        libc.mallopt(_MMAP_MAX, 65536)  # glibc's own values
        libc.mallopt(_TRIM_THRESHOLD, 128 * 1024)
        libc.malloc_trim(0)
