"""Rewrites that clean an exported graph without changing a single number that it computes.

PyTorch's exporter writes what it traced: constants as nodes, one quantiser per projection although query, key and value
read the same tensor, weights as float with a quantiser behind them. Runtimes match patterns, so each pass below brings
the graph closer to the one form they all recognise. All passes change the `onnx.GraphProto` in place.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

MASKED = -1e4
"""Added to the scores of padding: finite, and exp(-1e4) is 0, in float32, bf16 and FP16; padding alone gives no NaN."""


def clean(graph: GraphProto) -> None:
    """Apply every pass, in the order in which they build on each other."""
    inline_constants(graph)
    drop_float_casts(graph)
    fold_zero_points(graph)
    bound_masks(graph)
    copy_leading_dimensions(graph)
    share_quantizers(graph)
    store_weights_as_int8(graph)
    store_embeddings_as_int8(graph)
    remove_unused(graph)


def producers(graph: GraphProto) -> dict[str, NodeProto]:
    """The node that makes each tensor."""
    return {output: node for node in graph.node for output in node.output}


def constants(graph: GraphProto) -> dict[str, TensorProto]:
    """The initialisers by name."""
    return {tensor.name: tensor for tensor in graph.initializer}


def inline_constants(graph: GraphProto) -> None:
    """Turn `Constant` nodes into initialisers, and remove `Identity` nodes."""
    renamed: dict[str, str] = {}
    for node in list(graph.node):
        if node.op_type == "Constant":
            tensor = node.attribute[0].t
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
            graph.node.remove(node)
        elif node.op_type == "Identity" and node.output[0] not in {output.name for output in graph.output}:
            renamed[node.output[0]] = renamed.get(node.input[0], node.input[0])
            graph.node.remove(node)
    _rename_inputs(graph, renamed)


def drop_float_casts(graph: GraphProto) -> None:
    """Remove the casts to float of tensors that are float already, which the quantisers leave beside themselves.

    They would hide from a runtime that the residual connection and the quantiser read the same tensor.
    """
    made_by = producers(graph)
    renamed: dict[str, str] = {}
    for node in list(graph.node):
        if node.op_type != "Cast" or helper.get_node_attr_value(node, "to") != TensorProto.FLOAT:
            continue
        source = renamed.get(node.input[0], node.input[0])
        if source in made_by and made_by[source].op_type in _FLOAT_RESULTS:
            renamed[node.output[0]] = source
            graph.node.remove(node)
    _rename_inputs(graph, renamed)


_FLOAT_RESULTS = {"LayerNormalization", "DequantizeLinear", "MatMul", "Gemm", "Softmax", "Tanh", "Erf", "Div", "Clip"}
"""Operators whose result is never an integer in the graph of an encoder."""


def fold_zero_points(graph: GraphProto) -> None:
    """Replace a `Cast` of a constant by its result: the exporter writes integer zero points as casts of float zeros."""
    known = constants(graph)
    for node in list(graph.node):
        if node.op_type == "Cast" and node.input[0] in known:
            to = helper.tensor_dtype_to_np_dtype(helper.get_node_attr_value(node, "to"))
            value = numpy_helper.to_array(known[node.input[0]]).astype(to)
            graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
            graph.node.remove(node)


def bound_masks(graph: GraphProto) -> None:
    """Replace the lowest number of float32, by which some models hide padding, by one that 16 bits can hold too."""
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and not tensor.dims and numpy_helper.to_array(tensor) <= _LOWEST:
            tensor.CopyFrom(numpy_helper.from_array(np.array(MASKED, np.float32), tensor.name))


_LOWEST = -1e30
"""What is below is a mask, not a number to compute with."""


def copy_leading_dimensions(graph: GraphProto) -> None:
    """Write target shapes as `[0, 0, heads, size]`, where 0 copies the dimension, instead of computing them.

    The exporter reads batch and sequence with `Shape` and glues them to the constants. Every such tensor of an encoder
    is [batch, sequence, …] on both sides of the `Reshape`; `export` checks the result against PyTorch at two shapes.
    """
    made_by, known = producers(graph), constants(graph)
    for node in graph.node:
        if node.op_type != "Reshape" or node.input[1] not in made_by:
            continue
        concat = made_by[node.input[1]]
        if concat.op_type != "Concat" or not all(
            _reads_dimension(made_by, known, name, axis) for axis, name in enumerate(concat.input[:2])
        ):
            continue
        tail = [numpy_helper.to_array(known[name]) for name in concat.input[2:] if name in known]
        if len(tail) != len(concat.input) - 2:
            continue
        shape = np.concatenate([np.zeros(2, np.int64), *tail])
        name = f"{node.name}/shape"
        graph.initializer.append(numpy_helper.from_array(shape, name))
        node.input[1] = name


def _reads_dimension(made_by: dict[str, NodeProto], known: dict[str, TensorProto], name: str, axis: int) -> bool:
    """Whether a tensor is `Unsqueeze(Gather(Shape(x), axis))`."""
    unsqueeze = made_by.get(name)
    gather = made_by.get(unsqueeze.input[0]) if unsqueeze is not None and unsqueeze.op_type == "Unsqueeze" else None
    if gather is None or gather.op_type != "Gather" or gather.input[1] not in known:
        return False
    shape = made_by.get(gather.input[0])
    index = int(numpy_helper.to_array(known[gather.input[1]]))
    return shape is not None and shape.op_type == "Shape" and index == axis


def share_quantizers(graph: GraphProto) -> None:
    """Let quantisers of one tensor with one scale be one: query, key and value read the same INT8 tensor."""
    known = constants(graph)
    first: dict[tuple, str] = {}
    renamed: dict[str, str] = {}
    for node in list(graph.node):
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        source = renamed.get(node.input[0], node.input[0])
        key = (node.op_type, source, *(_content(known[name]) for name in node.input[1:]))
        if key in first:
            renamed[node.output[0]] = first[key]
            graph.node.remove(node)
        else:
            first[key] = node.output[0]
    _rename_inputs(graph, renamed)


def split_quantizers(graph: GraphProto) -> None:
    """The reverse of `share_quantizers`: a pair of its own for every product, as ONNX Runtime's INT8 products want."""
    made_by = producers(graph)
    seen: set[str] = set()
    for product in [node for node in graph.node if node.op_type in ("MatMul", "Gemm")]:
        pair = _upstream(made_by, product.input[0], ("DequantizeLinear", "QuantizeLinear"))
        if not pair or pair[0].output[0] not in seen:
            seen.add(product.input[0])
            continue
        tail = f"/for{product.name}"
        for node in reversed(pair):
            twin = NodeProto()
            twin.CopyFrom(node)
            twin.name, twin.output[0] = node.name + tail, node.output[0] + tail
            if node is pair[0]:
                twin.input[0] += tail
            graph.node.insert(list(graph.node).index(product), twin)
        product.input[0] += tail


def _content(tensor: TensorProto) -> tuple:
    array = numpy_helper.to_array(tensor)
    return array.dtype.str, array.shape, array.tobytes()


def store_weights_as_int8(graph: GraphProto) -> None:
    """Quantise the weights now, so that the file holds INT8 and a `DequantizeLinear`, and transpose them to [in, out].

    The file shrinks to a quarter, and what a runtime multiplies is what is stored, rather than its own rounding of it.
    """
    made_by = producers(graph)
    known = constants(graph)
    for gemm in [node for node in graph.node if node.op_type in ("MatMul", "Gemm")]:
        chain = _upstream(made_by, gemm.input[1], ("Transpose", "DequantizeLinear", "QuantizeLinear"))
        if chain and chain[-1].input[0] in known:
            _store_weight(graph, known, gemm, chain[-1])


def _upstream(made_by: dict[str, NodeProto], name: str, types: tuple[str, ...]) -> list[NodeProto]:
    """The nodes of these types, one feeding the one before it, that end in a tensor; empty where they are others."""
    nodes = []
    for op_type in types:
        node = made_by.get(name)
        if node is None or node.op_type != op_type:
            return []
        nodes.append(node)
        name = node.input[0]
    return nodes


def _store_weight(graph: GraphProto, known: dict[str, TensorProto], gemm: NodeProto, quantize: NodeProto) -> None:
    """Give one product a stored INT8 weight [in, out] with one scale per output channel."""
    weight, scale, zero_point = (numpy_helper.to_array(known[name]) for name in quantize.input)
    broadcast = scale.reshape(-1, 1) if scale.ndim else scale
    # as QuantizeLinear defines it: round half to even, saturate
    integers = np.clip(np.rint(weight / broadcast), -128, 127).astype(zero_point.dtype)
    name, output = quantize.input[0], f"{quantize.input[0]}.dequantized"
    stored = [
        numpy_helper.from_array(np.ascontiguousarray(integers.T), f"{name}.int8"),
        numpy_helper.from_array(scale, f"{name}.scale"),
        numpy_helper.from_array(zero_point, f"{name}.zero_point"),
    ]
    if stored[0].name in known:  # layers that share their weights, or a projection of states and of positions
        output += f"/for{gemm.name}"
    else:
        graph.initializer.extend(stored)
        known.update((tensor.name, tensor) for tensor in stored)
    node = helper.make_node(
        "DequantizeLinear",
        [tensor.name for tensor in stored],
        [output],
        name=f"{gemm.name}/weight/DequantizeLinear",
        axis=1 if scale.ndim else None,  # the output channels; a scale for the whole tensor has no axis
    )
    graph.node.insert(list(graph.node).index(gemm), node)
    gemm.input[1] = node.output[0]


def store_embeddings_as_int8(graph: GraphProto) -> None:
    """Store a table of embeddings [words, width] whose rows are all multiples of a 127th of their largest value as INT8
    and one scale per row: exactly what it holds, in a quarter of the space.

    The rows are read first and scaled afterwards, so that no runtime unfolds the table when it loads the graph.
    """
    known = constants(graph)
    for gather in [node for node in graph.node if node.op_type == "Gather" and node.input[0] in known]:
        table = numpy_helper.to_array(known[gather.input[0]])
        grid = _grid(table) if table.ndim == 2 and table.dtype == np.float32 else None
        if grid is not None:
            _store_table(graph, gather, *grid)


_FIRST_ROWS = 256
_ROUNDING = 1e-3
"""How far float32 leaves a multiple of a scale from being a whole number of it."""


def _grid(table: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """INT8 rows and their scales [words, 1], or None where the table is not on such a grid."""
    # the first rows tell it of most tables that are not, without copies of the whole
    if len(table) > _FIRST_ROWS and _grid(table[:_FIRST_ROWS]) is None:
        return None
    largest = np.abs(table).max(axis=1, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    multiples = table / scale
    integers = np.rint(multiples)
    return (integers.astype(np.int8), scale) if np.abs(multiples - integers).max() < _ROUNDING else None


def _store_table(graph: GraphProto, gather: NodeProto, integers: np.ndarray, scale: np.ndarray) -> None:
    """Replace `Gather(table)` by `Cast(Gather(INT8 rows)) * Gather(scales)`."""
    name, rows, result = gather.input[0], f"{gather.name}/int8", gather.output[0]
    graph.initializer.append(numpy_helper.from_array(integers, f"{name}.int8"))
    graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
    made = [
        helper.make_node("Gather", [f"{name}.int8", gather.input[1]], [rows], name=rows),
        helper.make_node("Cast", [rows], [f"{rows}/float"], name=f"{rows}/Cast", to=TensorProto.FLOAT),
        helper.make_node("Gather", [f"{name}.scale", gather.input[1]], [f"{rows}/scale"], name=f"{rows}/scale"),
        helper.make_node("Mul", [f"{rows}/float", f"{rows}/scale"], [result], name=f"{rows}/Mul"),
    ]
    place = list(graph.node).index(gather)
    graph.node.remove(gather)
    for node in reversed(made):
        graph.node.insert(place, node)


def remove_unused(graph: GraphProto) -> None:
    """Remove the nodes and initialisers that nothing reads."""
    wanted = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):
        if wanted.intersection(node.output):
            wanted.update(node.input)
        else:
            graph.node.remove(node)
    _keep(graph.initializer, wanted)
    del graph.value_info[:]


def _keep(tensors: Any, wanted: Iterable[str]) -> None:
    # one by one: to build the list anew would copy every weight
    for place in reversed([place for place, tensor in enumerate(tensors) if tensor.name not in wanted]):
        del tensors[place]


def _rename_inputs(graph: GraphProto, renamed: dict[str, str]) -> None:
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in renamed:
                node.input[position] = renamed[name]
