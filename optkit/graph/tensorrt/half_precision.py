"""A graph in FP16 or bf16, LayerNorm in float32, with the same inputs and a float32 output.

Written for strongly typed networks: weights, scales of quantisers and the casts in the graph change their type, and
TensorRT computes in what it finds. LayerNorm stays in float32 between two casts, because sums of squares overflow FP16
(TensorRT#2564, #3041); a runtime makes one kernel of the three. So does the mean of squares of an RMSNorm.
"""

import ml_dtypes
import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from optkit.core.errors import InputError
from optkit.graph.passes import constants, producers, remove_unused

TYPES = {"fp16": (TensorProto.FLOAT16, np.float16), "bf16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16)}
OPSET = 19
"""First opset whose quantisers read and write 16-bit types."""


def to_16bit(model: ModelProto, precision: str) -> None:
    """Change a float32 graph of `optkit.graph.export`, quantised or not, into a 16-bit one in place.

    Args:
        model: the graph, opset 17.
        precision: "fp16" or "bf16".

    Raises:
        InputError: another precision, or a number that FP16 cannot hold.
    """
    if precision not in TYPES:
        raise InputError(f"16-bit precision {precision!r}: expected one of {', '.join(TYPES)}")
    graph = model.graph
    chains = [[node] for node in graph.node if node.op_type == "LayerNormalization"] + _means_of_squares(graph)
    kept = _own_parameters(model, [node for chain in chains for node in chain])
    # a node of a runtime's own domain takes its constants in the types that it was given
    kept |= {name for node in graph.node if node.domain for name in node.input}
    scales = {node.input[1] for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in kept:
            _convert(tensor, precision, _LEAST_SCALE if tensor.name in scales else None)
    for node in graph.node:
        if node.op_type == "Cast" and helper.get_node_attr_value(node, "to") == TensorProto.FLOAT:
            _set_type(node, TYPES[precision][0])
    for chain in chains:
        _float_inside(model, chain[0], chain[-1], TYPES[precision][0])
    _float_output(model)
    remove_unused(graph)
    for entry in model.opset_import:
        if entry.domain == "":
            entry.version = OPSET
    for node in graph.node:
        if node.op_type == "ReduceMean":
            _axes_as_input(graph, node)


_OF_A_MEAN = ("Add", "Sqrt", "Div", "Reciprocal")
"""What an RMSNorm does with a mean of squares before it multiplies."""


def _means_of_squares(graph: GraphProto) -> list[list[NodeProto]]:
    """The nodes from squares to the reciprocal root of their mean, for each mean of squares."""
    made_by, known = producers(graph), constants(graph)
    readers = {name: node for node in graph.node for name in node.input}
    chains = []
    for mean in [node for node in graph.node if node.op_type == "ReduceMean"]:
        square = made_by.get(mean.input[0])
        if square is None or square.op_type not in ("Pow", "Mul"):
            continue
        chain = [square, mean]
        while (after := readers.get(chain[-1].output[0])) is not None and after.op_type in (
            "Add",
            "Sqrt",
            "Div",
            "Reciprocal",
        ):
            if not all(name in known or name == chain[-1].output[0] for name in after.input):
                break
            chain.append(after)
        chains.append(chain)
    return chains


def _axes_as_input(graph: GraphProto, mean: NodeProto) -> None:
    """Move the axes from the attribute of older opsets to the input of those from 18 on."""
    found = next((attribute for attribute in mean.attribute if attribute.name == "axes"), None)
    if found is not None:
        graph.initializer.append(numpy_helper.from_array(np.array(found.ints, np.int64), f"{mean.name}/axes"))
        mean.input.append(f"{mean.name}/axes")
        mean.attribute.remove(found)


def _own_parameters(model: ModelProto, nodes: list[NodeProto]) -> set[str]:
    """Names of the constants of nodes that stay in float32, made their own: the exporter stores equal tensors once."""
    known = constants(model.graph)
    kept: set[str] = set()
    for node in nodes:
        for position, name in enumerate(node.input):
            if name not in known:
                continue
            own = f"{name}/float32"
            if own not in kept:
                model.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(known[name]), own))
                kept.add(own)
            node.input[position] = own
    return kept


_LEAST_SCALE = 2.0**-24
"""The smallest number above 0 in FP16: the scale of a channel of zeros, which is none, would become 0."""


def _convert(tensor: TensorProto, precision: str, least: float | None = None) -> None:
    """Store a tensor in 16 bits, its values not below `least`."""
    array = numpy_helper.to_array(tensor)
    array = array if least is None else np.maximum(array, np.float32(least))
    with np.errstate(over="ignore"):
        converted = array.astype(TYPES[precision][1])
    if not np.isfinite(converted).all():
        raise InputError(
            f"{tensor.name} holds {np.abs(array).max():.4g}, more than {precision} can (65504 for fp16). Take bf16, or "
            "train the model with a lower learning rate"
        )
    tensor.ClearField("float_data")
    tensor.data_type, tensor.raw_data = TYPES[precision][0], converted.tobytes()


def _set_type(cast: NodeProto, to: int) -> None:
    del cast.attribute[:]
    cast.attribute.append(helper.make_attribute("to", to))


def _float_inside(model: ModelProto, first: NodeProto, last: NodeProto, outside: int) -> None:
    """Cast to float32 in front of a chain of nodes and back behind it; readers of its output see no other name."""
    nodes = model.graph.node
    output, wide, read = last.output[0], f"{last.output[0]}/float32", first.input[0]
    before = helper.make_node("Cast", [read], [f"{first.name}/input/float32"], f"{first.name}/Cast", to=1)
    after = helper.make_node("Cast", [wide], [output], f"{last.name}/Cast_1", to=outside)
    for position, name in enumerate(first.input):
        if name == read:
            first.input[position] = before.output[0]
    last.output[0] = wide
    nodes.insert(list(nodes).index(first), before)
    nodes.insert(list(nodes).index(last) + 1, after)


def _float_output(model: ModelProto) -> None:
    """Logits in float32, under their old name."""
    for output in model.graph.output:
        producer = next(node for node in model.graph.node if output.name in node.output)
        narrow = f"{output.name}/16bit"
        producer.output[list(producer.output).index(output.name)] = narrow
        model.graph.node.append(helper.make_node("Cast", [narrow], [output.name], f"{output.name}/Cast", to=1))
