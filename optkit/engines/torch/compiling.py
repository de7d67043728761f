"""From a graph to a package of AOTInductor: fused, changed to 16 bits, exported with dynamic shapes, compiled."""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from onnx import GraphProto, TensorProto, numpy_helper

from optkit.core.errors import InputError
from optkit.engines.base import TOKENS
from optkit.engines.sparse_share import sparse_share
from optkit.engines.torch import sparse_trial
from optkit.engines.torch.float8_products import to_float8
from optkit.engines.torch.fusions import fuse
from optkit.engines.torch.onnx_module import OnnxModule
from optkit.engines.torch.packed_batch import INPUTS, WHOLE, Packing
from optkit.engines.torch.packing import pack
from optkit.engines.torch.sparse_products import compress, join_sparse_products
from optkit.graph import onnx_file
from optkit.graph.passes import constants, producers
from optkit.graph.products import longest_sequence
from optkit.graph.tensorrt.half_precision import TYPES, to_16bit

_TYPES = {None: TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_NARROW = {"Int8Linear": "int8", "Float8Linear": "fp8"}
"""Products of eight bits, by what the evidence calls them."""
_TYPICAL = {"cpu": (8, 128), "cuda": (32, 384)}
"""Batch and sequence that kernels are chosen for, where the compiler has a choice."""
_SAME_NUMBERS = ("Cast", "Identity", "Reshape", "Slice", "Unsqueeze")
"""What may stand between an input and the table that it looks up."""


class Compiled(NamedTuple):
    """What was compiled."""

    inputs: tuple[str, ...]
    """Names of the inputs, in their order."""
    output: tuple[int, ...]
    """Shape of the output, -1 for batch and tokens."""
    packed: bool
    """Whether it also takes the inputs of `optkit.engines.torch.packing`."""
    longest: int | None
    tables: dict[str, int]
    """Rows of the smallest table that an input looks up, by the input's name."""
    evidence: dict[str, Any]


def compiled(graph: Path, sixteen_bit: str | None, path: Path, device: str, shortest: int, float8: bool = False) -> Compiled:
    """Compile a graph into a package.

    Args:
        graph: `model.onnx` of `optkit.graph.export`, quantised or not.
        sixteen_bit: "fp16" or "bf16" for what is not quantised; None for float32.
        path: file to write.
        device: "cpu" or "cuda".
        shortest: tokens of the shortest input that it has to take.
        float8: compute in FP8 what is quantised; needs 16 bits.

    Raises:
        InputError: an operator that there is no function for, sizes that depend on what an input holds, or ones that FP8
            does not take.
    """
    model = onnx_file.load(graph)
    longest = longest_sequence(model.graph)
    output = tuple(dim.dim_value or -1 for dim in model.graph.output[0].type.tensor_type.shape.dim)
    tables, fused = table_sizes(model.graph), fuse(model.graph, _TYPES[sixteen_bit])
    if float8 and sixteen_bit:
        to_float8(model.graph, TYPES[sixteen_bit][1])
    evidence = _evidence(model.graph, fused)
    packed = device == "cuda" and sixteen_bit is not None and pack(model.graph)
    if sixteen_bit:
        to_16bit(model, sixteen_bit)
    if device == "cuda":
        rows = math.prod(_TYPICAL[device])
        evidence |= join_sparse_products(model.graph, lambda product: sparse_trial.fastest(product, rows))
    module = OnnxModule(model.graph).eval().to(device)
    compress(module)
    program = exported(module, _TYPICAL[device], shortest, longest, graph)
    to_package(program, path, device)
    own = tuple(name for name in module.input_names if name not in INPUTS)
    return Compiled(own, output, packed, longest, tables, evidence | {"packed": packed})


def to_package(program: torch.export.ExportedProgram, path: Path, device: str) -> None:
    """Compile a traced module to a package of AOTInductor, with kernels for this machine's processor or card."""
    # weights are packed for the CPU's kernels once; a package runs on as many threads as its process has
    settings: dict[str, Any] = {"freezing": True, "cpp.dynamic_threads": True} if device == "cpu" else {}
    # compilers that know this C++ know every instruction set: no seconds of trials by each process, but the CPU's own word
    settings["cpp.vec_isa_ok"] = True
    if hasattr(torch._inductor.config.aot_inductor, "precompile_headers"):
        # worth their time for many packages, not for one
        settings["aot_inductor.precompile_headers"] = False
    with torch.no_grad():
        torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=settings)


def exported(
    module: OnnxModule, typical: tuple[int, int], shortest: int, longest: int | None, graph: Path
) -> torch.export.ExportedProgram:
    """Trace a module with batch, sequence and the number of packed tokens as symbols.

    Raises:
        InputError: its sizes depend on what an input holds.
    """
    rows, length = typical[0], min(typical[1], longest or typical[1])
    batch, tokens = torch.export.Dim("batch", min=1, max=1 << 16), WHOLE * torch.export.Dim("tokens", min=2, max=1 << 20)
    sequence = torch.export.Dim("sequence", min=shortest, max=longest or 1 << 20)
    both = {0: batch, 1: sequence}
    shapes = dict.fromkeys(module.input_names, both)
    feed = {name: torch.ones(rows, length, dtype=torch.int64) for name in module.input_names}
    if INPUTS[0] in feed:
        packing = Packing.of(np.ones((rows, length)))
        feed |= {name: torch.from_numpy(array) for name, array in zip(INPUTS, packing, strict=True)}
        shapes |= dict(zip(INPUTS, ({0: tokens}, both, {0: batch + 2}), strict=True))
    device = next((buffer.device for buffer in module.buffers()), torch.device("cpu"))
    inputs = tuple(value.to(device) for value in feed.values())
    try:
        try:
            return _traced(module, inputs, shapes, oblivious=False)
        except torch._dynamo.exc.UserError:
            return _traced(module, inputs, shapes, oblivious=True)
    except (torch._dynamo.exc.UserError, RuntimeError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{graph} cannot be compiled by PyTorch: {reason}. Choose another engine") from error


def _traced(
    module: OnnxModule, inputs: tuple[torch.Tensor, ...], shapes: Mapping[str, Any], oblivious: bool
) -> torch.export.ExportedProgram:
    """Export; sizes that are not looked at leave out none that happens to equal another, as comparing them would."""
    with torch.no_grad(), torch.fx.experimental._config.patch(backed_size_oblivious=oblivious):  # type: ignore[attr-defined]
        return torch.export.export(module, inputs, dynamic_shapes=(tuple(shapes.values()),), strict=False)


def table_sizes(graph: GraphProto) -> dict[str, int]:
    """Return the rows of the smallest table that an input looks up, by the input's name."""
    known, made_by, found = constants(graph), producers(graph), dict[str, int]()
    inputs = {value.name for value in graph.input}
    for node in graph.node:
        if node.op_type != "Gather" or node.input[0] not in known:
            continue
        name = node.input[1]
        while name in made_by and made_by[name].op_type in _SAME_NUMBERS:
            name = made_by[name].input[0]
        if name in inputs:
            rows = known[node.input[0]].dims[0]
            found[name] = min(rows, found.get(name, rows))
    return found


def _evidence(graph: GraphProto, fused: dict[str, int]) -> dict[str, Any]:
    """What share of the work is INT8 or FP8, what was fused, and what the weights hold, by the graph that is compiled."""
    known, work, weights = constants(graph), Counter[str](), []
    for node in graph.node:
        tensor = known.get(node.input[1]) if node.op_type in ("MatMul", "Gemm", *_NARROW) else None
        if tensor is None or len(tensor.dims) != 2:
            continue
        rows = 1 if node.op_type == "Gemm" else TOKENS
        work[_NARROW.get(node.op_type, "float")] += rows * math.prod(tensor.dims)
        array = numpy_helper.to_array(tensor)
        transposed = node.op_type in _NARROW or any(one.name == "transB" and one.i for one in node.attribute)
        weights.append(array if transposed else array.T)
    shares = {f"{kind}_gemm_share": work[kind] / total if (total := work.total()) else None for kind in _NARROW.values()}
    return {**shares, "fused": fused, **sparse_share(weights)}
