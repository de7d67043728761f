"""Runs a plan with torch's CUDA tensors, on a stream of its own, with a CUDA graph for every shape that comes again.

This module has not been run on a GPU yet: it is written from TensorRT's documentation, its calls are checked against the
Python bindings of 10.13 and 11.4, and `make test-gpu` is the first thing to run where there is a card.
"""

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optkit.core.errors import InputError, MachineError
from optkit.engines.checked_feed import of_one_shape
from optkit.engines.tensorrt import library
from optkit.engines.tensorrt.compatibility import PLAN, check_machine
from optkit.engines.tensorrt.logger import BuildLog

MOST_SHAPES = 8
"""Contexts kept ready, the least recently used goes first: each has tensors, buffers and a CUDA graph of its own."""


@dataclasses.dataclass
class Ready:
    """A context set to one shape, its tensors on the card and pinned in host memory, and its CUDA graph once the shape has
    come a second time."""

    context: Any
    inputs: dict[str, Any]
    output: Any
    host_inputs: dict[str, Any]
    host_output: Any
    runs: int = 0
    graph: Any = None


class Runner:
    """One plan on the first GPU that this process may use.

    Args:
        folder: of the engine.
        record: content of its `engine.json`.

    Raises:
        MachineError: no TensorRT or no GPU here, or the plan is for another version or card.
    """

    def __init__(self, folder: Path, record: Mapping[str, Any]) -> None:
        check_machine(folder, record)
        import torch

        self.trt, self.torch = library.load(), torch
        self.build_log = BuildLog(self.trt)
        self.runtime = self.trt.Runtime(self.build_log.logger)
        self.engine = self.runtime.deserialize_cuda_engine((folder / PLAN).read_bytes())
        if self.engine is None:
            raise MachineError(
                f"{folder / PLAN} cannot be loaded by TensorRT {self.trt.__version__}: "
                f"{'; '.join(self.build_log.errors())}. Build the engine again on this machine"
            )
        self.record, self.names = record, tuple(record["inputs"])
        self.profiles = record["profiles"]
        self.stream = torch.cuda.Stream()
        # one block for all contexts, as they run one after the other: with blocks of their own large shapes fill the card
        self.scratch = torch.empty(max(1, self.engine.device_memory_size_v2), dtype=torch.uint8, device="cuda")
        self.ready: OrderedDict[tuple[int, int], Ready] = OrderedDict()

    def infer(self, feed: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Logits, float32, of int64 tensors [batch, sequence]; tensors that the plan does not take are ignored.

        Raises:
            InputError: inputs of several shapes, or one that no profile of the plan takes.
        """
        torch = self.torch
        arrays = of_one_shape(feed, self.record)
        ready = self.ready_for(arrays[self.names[0]].shape)
        for name, array in arrays.items():
            ready.host_inputs[name].copy_(torch.from_numpy(array))
        with torch.cuda.stream(self.stream):
            for name, tensor in ready.inputs.items():
                tensor.copy_(ready.host_inputs[name], non_blocking=True)
            self.execute(ready)
            ready.host_output.copy_(ready.output, non_blocking=True)
        self.stream.synchronize()
        logits: NDArray[np.float32] = ready.host_output.numpy().copy()
        return logits

    def inspect(self) -> str:
        """The engine inspector's JSON."""
        return str(self.engine.create_engine_inspector().get_engine_information(self.trt.LayerInformationFormat.JSON))

    def execute(self, ready: Ready) -> None:
        """Enqueue one run, within `torch.cuda.stream(self.stream)`; the second of a shape records it as a CUDA graph, which
        later ones replay."""
        if ready.graph is not None:
            ready.graph.replay()
            return
        self._enqueue(ready.context)
        ready.runs += 1
        if ready.runs == 2:  # TensorRT wants a run before the capture, which settles what it does lazily
            self.stream.synchronize()
            graph = self.torch.cuda.CUDAGraph()
            with self.torch.cuda.graph(graph, stream=self.stream):
                self._enqueue(ready.context)
            ready.graph = graph
            graph.replay()

    def _enqueue(self, context: Any) -> None:
        self._demand(context.execute_async_v3(self.stream.cuda_stream), "run the plan")

    def _demand(self, done: Any, what: str) -> None:
        """Raise `MachineError` with TensorRT's own reasons where one of its calls was not done."""
        if not done:
            raise MachineError(f"TensorRT could not {what}: {'; '.join(self.build_log.errors()) or 'no reason given'}")

    def ready_for(self, shape: tuple[int, ...]) -> Ready:
        """The context for a shape [batch, sequence], set up where there is none.

        Raises:
            InputError: no profile of the plan takes the shape.
            MachineError: TensorRT refuses the shape, or has no memory for it.
        """
        key = (shape[0], shape[1])
        if key not in self.ready:
            if len(self.ready) >= MOST_SHAPES:
                self.ready.popitem(last=False)
            self.ready[key] = self._set_up(key)
        self.ready.move_to_end(key)
        return self.ready[key]

    def _set_up(self, shape: tuple[int, int]) -> Ready:
        torch, number = self.torch, profile_for(self.profiles, shape)
        context = self.engine.create_execution_context(self.trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        self._demand(context is not None, f"make a context for {shape}")
        context.set_device_memory(self.scratch.data_ptr(), self.scratch.numel())
        done = context.set_optimization_profile_async(number, self.stream.cuda_stream)
        self._demand(done, f"choose profile {number}")
        inputs = {name: torch.empty(shape, dtype=torch.int64, device="cuda") for name in self.names}
        for name, tensor in inputs.items():
            self._demand(context.set_input_shape(name, shape), f"take {name} as {shape}")
            self._demand(context.set_tensor_address(name, tensor.data_ptr()), f"read {name}")
        if missing := context.infer_shapes():
            raise MachineError(f"TensorRT cannot tell the output's shape for {shape}: it misses {', '.join(missing)}")
        output = torch.empty(tuple(context.get_tensor_shape("logits")), dtype=torch.float32, device="cuda")
        self._demand(context.set_tensor_address("logits", output.data_ptr()), "write the logits")
        self.stream.wait_stream(torch.cuda.current_stream())
        hosts = {name: torch.empty(shape, dtype=torch.int64, pin_memory=True) for name in self.names}
        return Ready(context, inputs, output, hosts, torch.empty(output.shape, pin_memory=True))


def profile_for(profiles: list[dict[str, list[list[int]]]], shape: tuple[int, int]) -> int:
    """The first profile that takes a shape [batch, sequence].

    Args:
        profiles: `{input: [smallest, best, largest shape]}` of each, as in `engine.json`.
        shape: wanted.

    Raises:
        InputError: none does.
    """
    for number, profile in enumerate(profiles):
        low, _, high = next(iter(profile.values()))
        if all(least <= size <= most for least, size, most in zip(low, shape, high, strict=True)):
            return number
    limits = "; ".join(f"{ends[0]} to {ends[2]}" for ends in (next(iter(profile.values())) for profile in profiles))
    raise InputError(
        f"the plan takes shapes [batch, sequence] of {limits}, found {list(shape)}. Send less at once, or build the plan "
        "with a larger --batch or --sequence"
    )
