"""Check that padding behind a text does not move its answer: served, it would depend on the texts beside it otherwise."""

import json
from typing import TYPE_CHECKING

import torch

from optkit.core.errors import InputError
from optkit.models import families
from optkit.models.tiny_copy import LENGTH
from optkit.models.tiny_model import tiny_model
from optkit.models.tokenizers import takes_segments
from optkit.tasks.base import TaskKind

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_UNMOVED = 1e-3
"""Largest change of the logits by padding, relative to the largest of them: what float32 rounds otherwise."""
_asked: set[str] = set()
"""Configurations, with their heads, that have been found in order."""


def check_config(config: "PreTrainedConfig", task: TaskKind) -> None:
    """Raise `InputError` where the answers of an architecture depend on padding, which a tiny random copy of it tells.

    Not asked are those of which there is no such copy, and those that take no random tokens, as one that looks for `</s>`.
    """
    key = json.dumps([task.head, config.to_dict()], sort_keys=True, default=repr)
    if key not in _asked:
        try:
            model = tiny_model(config, task)
        except Exception:  # of the family's own code, which raises nearly everything
            return
        check(model, task)
        _asked.add(key)


def check(model: "PreTrainedModel", task: TaskKind) -> None:
    """Raise `InputError` where the answer to a text depends on how much padding follows it."""
    length = min(LENGTH, families.longest_input(model) or LENGTH)
    feed = _padded(model, length)
    try:
        alone, beside = (_real(model, task, feed, end) for end in (length // 2, length))
    except Exception:  # as above
        return
    moved = float((alone - beside).abs().max() / alone.abs().max())
    if moved > _UNMOVED:
        raise InputError(
            f"{type(model).__name__} is not supported: padding moves its logits by {moved:.1%}, so that a text would be "
            "answered otherwise beside a longer one; choose another encoder"
        )


def _padded(model: "PreTrainedModel", length: int) -> dict[str, torch.Tensor]:
    """Two texts of random tokens, and as much padding behind them."""
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(0, model.config.vocab_size, (2, length), generator=generator)
    mask = (torch.arange(length) < length // 2).long().expand(2, length)
    padding = getattr(model.config, "pad_token_id", None) or 0
    feed = {"input_ids": ids.masked_fill(mask == 0, padding), "attention_mask": mask}
    return feed | ({"token_type_ids": torch.zeros_like(ids)} if takes_segments(model) else {})


@torch.no_grad()
def _real(model: "PreTrainedModel", task: TaskKind, feed: dict[str, torch.Tensor], end: int) -> torch.Tensor:
    """Return the logits of the first tokens of a feed, without those of padding."""
    cut = {name: given[:, :end] for name, given in feed.items()}
    real: torch.Tensor = task.unpadded(task.logits(model(**cut)), cut["attention_mask"])
    return real
