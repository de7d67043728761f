"""Inputs looked at before compiled code reads them, which checks no shape itself, and whose process ends at a number beyond
a table."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optkit.core.errors import InputError
from optkit.engines.base import Record


def of_one_shape(feed: Mapping[str, NDArray[Any]], record: Record) -> dict[str, NDArray[np.int64]]:
    """Return the inputs of an engine in its order.

    Args:
        feed: inputs by name, whole numbers [batch, sequence]; others are ignored.
        record: content of its `engine.json`.

    Raises:
        InputError: inputs of several shapes, or without a token.
    """
    arrays = {name: np.ascontiguousarray(feed[name], np.int64) for name in record["inputs"]}
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    shape = next(iter(shapes.values()))
    if len(shape) != 2 or 0 in shape or any(one != shape for one in shapes.values()):
        raise InputError(f"found inputs {shapes}, expected all of one shape [batch, sequence], without a 0")
    return arrays


def check_length(tokens: int, longest: int | None, where: str = "") -> None:
    """Raise `InputError` for more tokens than an engine takes; None takes any number.

    Args:
        tokens: of the inputs.
        longest: that the engine takes.
        where: the begin of the message.
    """
    if longest is not None and tokens > longest:
        raise InputError(f"{where}found {tokens} tokens, the engine takes {longest} at most. Cut the text")


def checked(feed: Mapping[str, NDArray[Any]], record: Record) -> list[NDArray[np.int64]]:
    """Return the inputs of an engine in its order, where its record says what they may be.

    Args:
        feed: inputs by name, whole numbers [batch, sequence]; others are ignored.
        record: content of its `engine.json`, with `longest`, and `tables`: the rows of the smallest table that an input
            looks up.

    Raises:
        InputError: as `of_one_shape`; also too many tokens, or a number that the model has no embedding for.
    """
    arrays = of_one_shape(feed, record)
    check_length(next(iter(arrays.values())).shape[1], record["longest"])
    for name, rows in record.get("tables", {}).items():
        low, high = int(arrays[name].min()), int(arrays[name].max())
        if low < 0 or high >= rows:
            raise InputError(f"{name}: found numbers from {low} to {high}, the model has embeddings for 0 to {rows - 1}")
    return list(arrays.values())
