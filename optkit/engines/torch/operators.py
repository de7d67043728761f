"""ONNX operators as PyTorch functions, as far as graphs of encoders have them."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from optkit.engines.torch.encoder_operators import ENCODERS
from optkit.engines.torch.host_values import Attributes, Operator, Value, as_tensor, host, integers, on_host
from optkit.engines.torch.shape_operators import SHAPES


def _elementwise(tensors: Operator, integers: Operator) -> Operator:
    """A function of two broadcast values: of tensors, or of the host."""

    def apply(attributes: Attributes, left: Value, right: Value) -> Value:
        if on_host(left, right):
            return np.asarray(integers(left, right), dtype=object)
        like = left if isinstance(left, torch.Tensor) else right
        return tensors(as_tensor(left, like), as_tensor(right, like))

    return apply


def _divide(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    whole = not (left.is_floating_point() or right.is_floating_point())
    return torch.div(left, right, rounding_mode="trunc" if whole else None)


def _of_tensor(function: Operator) -> Operator:
    return lambda attributes, *values: function(*values)


def _gemm(attributes: Attributes, left: torch.Tensor, right: torch.Tensor, bias: Value = None) -> Value:
    if attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
        raise NotImplementedError(f"Gemm with {dict(attributes)}")
    left = left.t() if attributes.get("transA") else left
    return F.linear(left, right if attributes.get("transB") else right.t(), bias)


def _layer_norm(attributes: Attributes, value: torch.Tensor, weight: torch.Tensor, bias: Value = None) -> Value:
    axis = attributes.get("axis", -1)
    return F.layer_norm(value, value.shape[axis:], weight, bias, attributes.get("epsilon", 1e-5))


def _reduce(function: Operator) -> Operator:
    def apply(attributes: Attributes, value: torch.Tensor, axes: Value = None) -> Value:
        places = attributes.get("axes") if axes is None else integers(axes)
        return function(value, tuple(places or range(value.dim())), keepdim=bool(attributes.get("keepdims", 1)))

    return apply


def _clip(attributes: Attributes, value: torch.Tensor, low: Value = None, high: Value = None) -> Value:
    low, high = (None if end is None else end.item() for end in (low, high))
    return torch.clamp(value, low, high)


def _pad(attributes: Attributes, value: torch.Tensor, pads: Value, fill: Value = None, axes: Value = None) -> Value:
    if attributes.get("mode", "constant") != "constant":
        raise NotImplementedError(f"Pad by {attributes['mode']}")
    places, amounts = list(range(value.dim())) if axes is None else integers(axes), integers(pads)
    sides = dict.fromkeys(range(value.dim()), (0, 0))
    sides |= {axis % value.dim(): (amounts[at], amounts[at + len(places)]) for at, axis in enumerate(places)}
    flat = [size for axis in reversed(range(value.dim())) for size in sides[axis]]
    return F.pad(value, flat, value=0.0 if fill is None else fill.item())


def _conv(attributes: Attributes, value: torch.Tensor, weight: torch.Tensor, bias: Value = None) -> Value:
    _plain(attributes, "Conv")
    function = {3: F.conv1d, 4: F.conv2d}[value.dim()]
    half = len(attributes.get("pads", [])) // 2
    pads = attributes.get("pads", [0])
    if list(pads[:half]) != list(pads[half:]) and half:
        raise NotImplementedError(f"Conv with pads {pads}")
    return function(
        value,
        weight,
        bias,
        tuple(attributes.get("strides", [1])),
        tuple(pads[:half] or [0]),
        tuple(attributes.get("dilations", [1])),
        attributes.get("group", 1),
    )


def _pool(one: Operator, two: Operator) -> Operator:
    def apply(attributes: Attributes, value: torch.Tensor) -> Value:
        _plain(attributes, "pooling")
        function = {3: one, 4: two}[value.dim()]
        if any(attributes.get("pads", [])):
            raise NotImplementedError(f"pooling with pads {attributes['pads']}")
        return function(
            value, attributes["kernel_shape"], attributes.get("strides"), ceil_mode=bool(attributes.get("ceil_mode", 0))
        )

    return apply


def _plain(attributes: Attributes, what: str) -> None:
    if attributes.get("auto_pad", "NOTSET") != "NOTSET":
        raise NotImplementedError(f"{what} with auto_pad {attributes['auto_pad']}")


def _cumsum(attributes: Attributes, value: torch.Tensor, axis: Value) -> Value:
    if attributes.get("exclusive") or attributes.get("reverse"):
        raise NotImplementedError(f"CumSum with {dict(attributes)}")
    return torch.cumsum(value, axis.item(), dtype=value.dtype)


OPERATORS: Mapping[str, Operator] = {
    **SHAPES,
    **ENCODERS,
    "Add": _elementwise(torch.add, lambda one, other: one + other),
    "Sub": _elementwise(torch.sub, lambda one, other: one - other),
    "Mul": _elementwise(torch.mul, lambda one, other: one * other),
    "Div": _elementwise(_divide, lambda one, other: one // other),
    "Equal": _elementwise(torch.eq, lambda one, other: one == other),
    "Less": _elementwise(torch.lt, lambda one, other: one < other),
    "LessOrEqual": _elementwise(torch.le, lambda one, other: one <= other),
    "Greater": _elementwise(torch.gt, lambda one, other: one > other),
    "GreaterOrEqual": _elementwise(torch.ge, lambda one, other: one >= other),
    "Min": _elementwise(torch.minimum, np.minimum),
    "Max": _elementwise(torch.maximum, np.maximum),
    "Pow": lambda attributes, value, exponent: value.pow(exponent.item() if on_host(exponent) else exponent),
    "And": _of_tensor(torch.logical_and),
    "Or": _of_tensor(torch.logical_or),
    "Not": _of_tensor(torch.logical_not),
    "MatMul": _of_tensor(torch.matmul),
    "Gemm": _gemm,
    "Einsum": lambda attributes, *values: torch.einsum(attributes["equation"], *values),
    "LayerNormalization": _layer_norm,
    "Softmax": lambda attributes, value: torch.softmax(value, attributes.get("axis", -1)),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "ReduceMax": _reduce(torch.amax),
    "ArgMax": lambda attributes, value: value.argmax(attributes.get("axis", 0), bool(attributes.get("keepdims", 1))),
    "CumSum": _cumsum,
    "Clip": _clip,
    "Pad": _pad,
    "Conv": _conv,
    "AveragePool": _pool(F.avg_pool1d, F.avg_pool2d),
    "MaxPool": _pool(F.max_pool1d, F.max_pool2d),
    "Neg": lambda attributes, value: host(-value) if on_host(value) else -value,
    **{
        name: _of_tensor(function)
        for name, function in {
            "Erf": torch.erf,
            "Tanh": torch.tanh,
            "Sigmoid": torch.sigmoid,
            "Relu": torch.relu,
            "Exp": torch.exp,
            "Log": torch.log,
            "Abs": torch.abs,
            "Sqrt": torch.sqrt,
            "Sin": torch.sin,
            "Cos": torch.cos,
        }.items()
    },
}
"""Functions by ONNX's name: of the node's attributes and its inputs."""


NUMBERS = {"Clip": (1, 2), "Pad": (2,), "Pow": (1,)}
"""Inputs by their places that an operator reads as numbers; constants of one entry there are kept on the host."""


def unknown(names: Sequence[str]) -> list[str]:
    """Return the operators among names that there is no function for, sorted."""
    return sorted(set(names) - set(OPERATORS))
