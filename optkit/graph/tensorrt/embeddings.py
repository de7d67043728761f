"""Embeddings for TensorRT: tables that `optkit.graph.passes` stored as INT8 rows with a scale each, as floats again.

TensorRT's strongly typed networks take INT8 tensors from quantisers alone, not from a table. The numbers stay the same.
"""

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper

from optkit.graph.passes import constants, producers, remove_unused


def unfold(graph: GraphProto) -> int:
    """Replace each `Cast(Gather(INT8 rows)) * Gather(scales)` by one `Gather` of floats; returns how many there were."""
    made_by, known = producers(graph), constants(graph)
    count = 0
    for multiply in [node for node in graph.node if node.op_type == "Mul"]:
        rows = _rows(multiply, made_by, known)
        if rows is None:
            continue
        scales = made_by[multiply.input[1]]
        table = numpy_helper.to_array(known[rows.input[0]]).astype(np.float32)
        name = f"{rows.input[0]}/float32"
        table *= numpy_helper.to_array(known[scales.input[0]])
        # in its place at once: the table is the largest weight, and every copy of it takes time
        graph.initializer.add(name=name, data_type=TensorProto.FLOAT, dims=table.shape, raw_data=table.tobytes())
        multiply.op_type = "Gather"
        multiply.input[:] = [name, rows.input[1]]
        count += 1
    if count:
        remove_unused(graph)
    return count


def _rows(multiply: NodeProto, made_by: dict[str, NodeProto], known: dict[str, TensorProto]) -> NodeProto | None:
    """The node that reads INT8 rows for a product with their scales."""
    cast, scales = (made_by.get(name) for name in multiply.input)
    rows = made_by.get(cast.input[0]) if cast is not None and cast.op_type == "Cast" else None
    if rows is None or scales is None or not rows.op_type == scales.op_type == "Gather":
        return None
    stored = known.get(rows.input[0])
    return rows if stored is not None and stored.data_type == TensorProto.INT8 and scales.input[0] in known else None
