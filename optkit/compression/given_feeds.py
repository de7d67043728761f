"""Inputs that a caller gives for calibration, checked before the model is changed."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from optkit.core.errors import InputError
from optkit.models import families
from optkit.models.loading import LoadedModel
from optkit.tasks.base import Feed

Batches = Iterable[Mapping[str, Any]]
"""Batches of model inputs: integer tensors or arrays [batch, sequence] by name; other names are ignored."""


def feeds_of(loaded: LoadedModel, calibration: Batches) -> list[Feed]:
    """Return the model inputs of each batch, checked before the model is changed."""
    if isinstance(calibration, Mapping | str | torch.Tensor):
        raise InputError("calibration: found one batch, expected several: calibration=[batch]")
    feeds = [_feed(loaded, batch) for batch in calibration]
    if not feeds:
        raise InputError("calibration: found no batch, expected one or more (a generator can be read only once)")
    return feeds


def _feed(loaded: LoadedModel, batch: Mapping[str, Any]) -> Feed:
    """Return the model inputs of a batch, int64 [batch, sequence]."""
    if not isinstance(batch, Mapping):
        raise InputError(
            f"calibration: found a batch that is a {type(batch).__name__}, expected {{input: [batch, sequence]}}"
        )
    names = [name for name in inspect.signature(loaded.model.forward).parameters if name in batch and name != "labels"]
    if "input_ids" not in names:
        raise InputError(f"calibration: found a batch with {', '.join(batch) or 'nothing'}, expected input_ids and the like")
    feed = {name: _integers(name, batch[name]) for name in names}
    rows, words = feed["input_ids"], len(families.word_embeddings(loaded.model))
    longest = families.longest_input(loaded.model) or rows.shape[1]
    if rows.shape[1] > longest:
        raise InputError(f"calibration: found input_ids of {rows.shape[1]} tokens, the model has positions for {longest}")
    if rows.size and not (rows.min() >= 0 and rows.max() < words):
        raise InputError(f"calibration: found input_ids from {rows.min()} to {rows.max()}, the model knows 0 to {words - 1}")
    return feed


def _integers(name: str, given: Any) -> NDArray[Any]:
    """Convert an input to int64 [batch, sequence]."""
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise InputError(f"calibration: {name} has rows of different lengths, expected one length; pad them") from error
    if array.ndim != 2 or array.dtype.kind not in "iub":
        raise InputError(
            f"calibration: found {name} {list(array.shape)} of {array.dtype}, expected integers [batch, sequence]"
        )
    return array.astype(np.int64)
