"""The graph run as it is written: the yardstick that every engine is compared with.

ONNX Runtime executes it with all graph optimisations off, so that `QuantizeLinear` and `DequantizeLinear` really round
and everything between them is float32 arithmetic. Slow, and free of any runtime's own ideas.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from optkit.core.cpu import available_threads


def load(path: Path, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Open a graph; `threads` None takes every core that this process may use."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads or available_threads()
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def infer(handle: onnxruntime.InferenceSession, feed: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Logits, float32, of int64 tensors [batch, sequence]; tensors that the graph does not take are ignored."""
    wanted = {tensor.name: np.asarray(feed[tensor.name], np.int64) for tensor in handle.get_inputs()}
    return handle.run(["logits"], wanted)[0]
