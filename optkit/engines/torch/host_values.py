"""What the inputs and outputs of an ONNX operator are here: tensors, and sizes on the host.

Sizes stay on the host: `Shape` gives integers, which `torch.export` traces as symbols, in an array of NumPy's objects, and
what is computed from sizes alone stays one. A value is thus a tensor, an array of the host, or None where an optional input
is missing.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

Value = Any
Attributes = Mapping[str, Any]
Operator = Callable[..., Value]

TYPES = {
    1: torch.float32,
    3: torch.int8,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}
"""Torch's types by ONNX's number of an element type."""


def host(value: Any) -> Value:
    """Return integers, or nested lists of them, as a value of the host."""
    return np.array(value, dtype=object)


def integers(value: Value) -> list[int]:
    """Return the entries of a value of the host, in order.

    Raises:
        NotImplementedError: it is a tensor.
    """
    if isinstance(value, torch.Tensor):
        raise NotImplementedError("a size or an axis is computed from what an input holds")
    return list(value.flat)


def on_host(*values: Value) -> bool:
    """Return whether no value is a tensor."""
    return not any(isinstance(value, torch.Tensor) for value in values)


def as_tensor(value: Value, like: torch.Tensor) -> torch.Tensor:
    """Return a value of the host as an int64 tensor on the device of another."""
    if isinstance(value, torch.Tensor):
        return value
    entries = [torch.full((), one, dtype=torch.int64, device=like.device) for one in value.flat]
    return entries[0] if value.ndim == 0 else torch.stack(entries).reshape(value.shape)
