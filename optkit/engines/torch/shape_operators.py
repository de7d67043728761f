"""Operators that move entries and change shapes, of tensors and of sizes on the host."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional as F

from optkit.engines.torch.host_values import TYPES, Attributes, Operator, Value, as_tensor, host, integers, on_host

END = 1 << 62
"""Ends of slices beyond it mean the end of the axis."""


def _shape(attributes: Attributes, value: Value) -> Value:
    return host(list(value.shape)[attributes.get("start", 0) : attributes.get("end")])


def _gather(attributes: Attributes, data: Value, index: Value) -> Value:
    axis = attributes.get("axis", 0)
    if on_host(data, index):
        return np.asarray(np.take(data, index.astype(int), axis), dtype=object)
    if on_host(index) and index.ndim == 0:
        return data.select(axis, index.item())
    index, axis = as_tensor(index, data), axis % data.dim()
    if axis == 0 and data.dim() == 2 and index.dim():
        return F.embedding(index, data)
    taken = data.index_select(axis, index.reshape(-1))
    return taken.reshape([*data.shape[:axis], *index.shape, *data.shape[axis + 1 :]])


def _unsqueeze(attributes: Attributes, value: Value, axes: Value = None) -> Value:
    places = attributes["axes"] if axes is None else integers(axes)
    rank = value.ndim + len(places)
    for axis in sorted(axis % rank for axis in places):
        value = np.expand_dims(value, axis) if on_host(value) else value.unsqueeze(axis)
    return value


def _squeeze(attributes: Attributes, value: Value, axes: Value = None) -> Value:
    places = attributes.get("axes") if axes is None else integers(axes)
    return value.squeeze() if places is None else value.squeeze(tuple(places))


def _slice(
    attributes: Attributes, value: Value, starts: Value, ends: Value, axes: Value = None, steps: Value = None
) -> Value:
    places = integers(axes) if axes is not None else range(len(starts))
    strides = integers(steps) if steps is not None else [1] * len(starts)
    for start, end, axis, step in zip(integers(starts), integers(ends), places, strides, strict=True):
        axis %= value.ndim
        if step < 0 and not on_host(value):
            if (start, step) != (-1, -1) or end > -END:
                raise NotImplementedError(f"Slice from {start} to {end} by {step}")
            value = value.flip(axis)
            continue
        last = None if isinstance(end, int) and abs(end) >= END else end
        if not isinstance(start, int) and not on_host(value):
            # a slice would be compiled for starts beyond zero alone
            size = value.shape[axis]
            ends = [size if place is None else place + size if place < 0 else place for place in (start, last)]
            value = value.index_select(axis, torch.arange(*ends, step, device=value.device))
            continue
        value = value[(slice(None),) * axis + (slice(start, last, step),)]
    return value


def _concat(attributes: Attributes, *values: Value) -> Value:
    if on_host(*values):
        return np.concatenate(values, attributes["axis"])
    like = next(value for value in values if isinstance(value, torch.Tensor))
    return torch.cat([as_tensor(value, like) for value in values], attributes["axis"])


def _reshape(attributes: Attributes, value: Value, sizes: Value) -> Value:
    wanted = [value.shape[at] if isinstance(size, int) and size == 0 else size for at, size in enumerate(integers(sizes))]
    return value.reshape(wanted)


def _flatten(attributes: Attributes, value: torch.Tensor) -> Value:
    axis = attributes.get("axis", 1) % (value.dim() + 1)
    return value.reshape(math.prod(value.shape[:axis]), math.prod(value.shape[axis:]))


def _transpose(attributes: Attributes, value: Value) -> Value:
    return value.transpose(attributes["perm"]) if on_host(value) else value.permute(attributes["perm"])


def _expand(attributes: Attributes, value: Value, sizes: Value) -> Value:
    wanted = integers(sizes)
    if on_host(value):
        return np.broadcast_to(value, np.broadcast_shapes(value.shape, tuple(wanted)))
    own = [1] * (len(wanted) - value.dim()) + list(value.shape)
    wanted = [1] * (len(own) - len(wanted)) + wanted
    return value.expand(
        [mine if isinstance(size, int) and size == 1 else size for mine, size in zip(own, wanted, strict=True)]
    )


def _constant_of_shape(attributes: Attributes, sizes: Value) -> Value:
    value, wanted = attributes.get("value", torch.zeros(1)), integers(sizes)
    if value.dtype == torch.int64 and all(isinstance(size, int) for size in wanted) and len(wanted) == 1:
        return host([int(value)] * wanted[0])
    return torch.full(wanted, value.item(), dtype=value.dtype)


def _where(attributes: Attributes, condition: Value, yes: Value, no: Value) -> Value:
    if on_host(condition, yes, no):
        return np.where(condition.astype(bool), yes, no)
    like = next(value for value in (condition, yes, no) if isinstance(value, torch.Tensor))
    return torch.where(*(as_tensor(value, like) for value in (condition, yes, no)))


def _cast(attributes: Attributes, value: Value) -> Value:
    kind = TYPES[attributes["to"]]
    if isinstance(value, torch.Tensor):
        return value.to(kind)
    return as_tensor(value, torch.empty(0)).to(kind) if kind.is_floating_point else value


def _split(attributes: Attributes, value: torch.Tensor, sizes: Value = None) -> Value:
    axis = attributes.get("axis", 0)
    return value.chunk(attributes["num_outputs"], axis) if sizes is None else value.split(integers(sizes), axis)


SHAPES: Mapping[str, Operator] = {
    "Shape": _shape,
    "Gather": _gather,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Slice": _slice,
    "Concat": _concat,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Expand": _expand,
    "ConstantOfShape": _constant_of_shape,
    "Where": _where,
    "Cast": _cast,
    "Split": _split,
    "GatherElements": lambda attributes, data, index: torch.gather(data, attributes.get("axis", 0), index),
    "Identity": lambda attributes, value: value,
    "Range": lambda attributes, *ends: torch.arange(*(end.item() for end in ends)),
}
"""Functions by ONNX's name: of the node's attributes and its inputs."""
