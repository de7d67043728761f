"""Ranges of the tensors that only TensorRT's graphs quantise: measured on a quantised graph, run as it is written.

The scales inside the graph come from the checkpoint and stay as they are. Outputs of GEMMs and the inputs of attention's
products have none there, because quantising them would slow the engines for CPUs down.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from onnx import helper

from optkit.core.atomic import write_json
from optkit.core.errors import InputError
from optkit.core.json_door import read_json
from optkit.graph import onnx_file, reference
from optkit.graph.tensorrt import attention
from optkit.graph.tensorrt.placement import measured, without_bias

FILE = "ranges.json"
METHOD = "mse"
"""How amax is chosen: as the recipes do for the tensors that they calibrate."""


class _Ranges(TypedDict):
    amax: dict[str, float]


def measure(graph: Path, feeds: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Amax by tensor, of every tensor that `optkit.graph.tensorrt.placement.measured` names.

    Args:
        graph: a quantised `model.onnx`; one with more outputs lies beside it meanwhile.
        feeds: real inputs, int64 [batch, sequence]; of the training split, since scales are fitted to them.

    Raises:
        InputError: there are no feeds, or a tensor is nothing but zeros.
    """
    if not feeds:
        raise InputError(f"{graph}: no inputs to measure ranges on; expected at least one batch")
    model = onnx_file.structure(graph)
    names = measured(model.graph)
    for folding in attention.foldings(model.graph):
        less = [folding.context, folding.bias], [without_bias(folding.context)]
        model.graph.node.append(helper.make_node("Sub", *less, name=less[1][0]))
    for name in names:
        model.graph.output.append(helper.make_empty_tensor_value_info(name))
    with_outputs = graph.with_name(".outputs.onnx")
    onnx_file.save(model, with_outputs)
    try:
        return _amax(with_outputs, names, feeds)
    finally:
        with_outputs.unlink()


def _amax(graph: Path, names: Sequence[str], feeds: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    import torch

    from optkit.compression.calibration import HistogramCalibrator

    session = reference.load(graph)
    calibrators = {name: HistogramCalibrator(METHOD) for name in names}
    for feed in feeds:
        wanted = {tensor.name: np.asarray(feed[tensor.name], np.int64) for tensor in session.get_inputs()}
        for name, values in zip(names, session.run(list(names), wanted), strict=True):
            calibrators[name].collect(torch.from_numpy(values))
    found = {name: calibrator.compute_amax() for name, calibrator in calibrators.items()}
    if empty := [name for name, amax in found.items() if amax is None]:
        raise InputError(f"{graph}: {empty[0]} is zero for every input; its range cannot be measured. Train the model")
    return {name: float(amax) for name, amax in found.items() if amax is not None}


def prepare(graph: Path, feeds: Sequence[Mapping[str, np.ndarray]], folder: Path) -> Path:
    """Put a copy of a graph and its measured ranges into an empty folder; returns the copy."""
    placed = onnx_file.copy(graph, folder / graph.name)
    write_json(folder / FILE, {"method": METHOD, "batches": len(feeds), "amax": measure(placed, feeds)})
    return placed


def read(graph: Path) -> dict[str, float]:
    """The ranges beside a graph; empty where none were measured."""
    path = graph.with_name(FILE)
    return dict(read_json(path, _Ranges)["amax"]) if path.is_file() else {}
