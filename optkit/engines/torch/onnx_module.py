"""An ONNX graph as a PyTorch module that `torch.export` can trace, with its sizes as symbols."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from optkit.core.errors import InputError
from optkit.engines.torch.host_values import Value, host
from optkit.engines.torch.operators import NUMBERS, OPERATORS, unknown

_SMALL = 16
"""Whole numbers with one axis at most and no more entries stay on the host: they are sizes, axes and indices."""

_NOT_NUMPYS: Mapping[int, tuple[Any, torch.dtype]] = {
    TensorProto.BFLOAT16: (np.int16, torch.bfloat16),
    TensorProto.FLOAT8E4M3FN: (np.int8, torch.float8_e4m3fn),
}
"""Types that NumPy has no number for: the one that their bits are read as, and PyTorch's."""


class Step(NamedTuple):
    """One node."""

    operator: str
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    done_with: tuple[str, ...]
    """Values that no later node reads."""


class OnnxModule(nn.Module):
    """Computes what a graph says.

    Args:
        graph: of `optkit.graph.export`, with weights.

    Raises:
        InputError: the graph has operators that there is no function for; all are named.
    """

    def __init__(self, graph: GraphProto) -> None:
        super().__init__()
        if missing := unknown([node.op_type for node in graph.node]):
            raise InputError(f"the torch engine has no {', '.join(missing)}, which the graph needs. Choose another engine")
        self.input_names = tuple(value.name for value in graph.input)
        self.output_name = graph.output[0].name
        self.on_host: dict[str, Value] = {"": None}
        self.tensors: dict[str, str] = {}
        numbers = {node.input[at] for node in graph.node for at in NUMBERS.get(node.op_type, ()) if at < len(node.input)}
        for tensor in graph.initializer:
            self._keep(tensor, tensor.name in numbers)
        self.steps = tuple(_steps(graph))

    def _keep(self, tensor: TensorProto, number: bool) -> None:
        found = constant(tensor)
        if number and isinstance(found, torch.Tensor) and found.numel() == 1:
            found = host(found.item())
        if not isinstance(found, torch.Tensor):
            self.on_host[tensor.name] = found
            return
        name = self.tensors[tensor.name] = f"c{len(self.tensors)}"
        self.register_buffer(name, found)

    def forward(self, *feed: torch.Tensor) -> torch.Tensor:
        """The graph's output.

        Args:
            feed: int64 [batch, sequence], in the order of `input_names`.
        """
        values: dict[str, Value] = dict(zip(self.input_names, feed, strict=True))
        for step in self.steps:
            found = OPERATORS[step.operator](step.attributes, *(self._value(values, name) for name in step.inputs))
            values.update(zip(step.outputs, found if len(step.outputs) > 1 else (found,), strict=True))
            for name in step.done_with:
                values.pop(name, None)
        result: torch.Tensor = values[self.output_name]
        return result

    def _value(self, values: Mapping[str, Value], name: str) -> Value:
        if name in values:
            return values[name]
        return getattr(self, self.tensors[name]) if name in self.tensors else self.on_host[name]


def constant(tensor: TensorProto) -> Value:
    """Return a constant of a graph: small whole numbers on the host, all else as a tensor."""
    array = numpy_helper.to_array(tensor)
    if tensor.data_type in _NOT_NUMPYS:
        bits, kind = _NOT_NUMPYS[tensor.data_type]
        return torch.from_numpy(np.array(array).view(bits)).view(kind)
    if array.dtype in (np.int32, np.int64) and array.ndim <= 1 and array.size <= _SMALL:
        return host(array.tolist())
    return torch.from_numpy(np.array(array))


def _steps(graph: GraphProto) -> Iterator[Step]:
    last = {name: place for place, node in enumerate(graph.node) for name in node.input}
    kept = {graph.output[0].name}
    for place, node in enumerate(graph.node):
        done = tuple(name for name in set(node.input) if last[name] == place and name not in kept)
        yield Step(node.op_type, _attributes(node), tuple(node.input), tuple(node.output), done)


def _attributes(node: NodeProto) -> dict[str, Any]:
    found = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    for name, value in found.items():
        if isinstance(value, bytes):
            found[name] = value.decode()
        elif isinstance(value, TensorProto):
            found[name] = torch.from_numpy(np.array(numpy_helper.to_array(value)))
    return found
