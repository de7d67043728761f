"""The matrix products of a graph by what they are: GEMMs with a stored weight, and attention's products of activations."""

from dataclasses import dataclass

from onnx import GraphProto, NodeProto, TensorProto

from optkit.graph.passes import constants, producers
from optkit.models.layers import Layers, plain

PRODUCER = "optkit"
"""Name of the producer in the files of optkit's own graphs."""
LAYERS_KEY = "optkit.layers"
"""Key in a graph's metadata of where the layers are, if a family's record says it."""
LONGEST_KEY = "optkit.longest"
"""Key in a graph's metadata of the most tokens that it takes, if it has no table of position ids."""
KEPT_KEY = "optkit.kept_float"
"""Key in a quantised graph's metadata of the modules that stay float on purpose, with commas between them."""
_PLUMBING = ("Transpose", "Reshape", "Cast", "QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Product:
    """One product."""

    name: str
    """Name of the node."""
    layer: int | None
    """Number of the encoder's layer; None outside of it."""
    weight: tuple[int, int] | None
    """Shape of the stored weight, in no order; None where two activations are multiplied."""

    @property
    def is_attention(self) -> bool:
        return self.weight is None and self.layer is not None


def products(graph: GraphProto) -> list[Product]:
    """Every `MatMul` and `Gemm`, in the graph's order."""
    made_by, known, number = producers(graph), constants(graph), layers_of(graph).number
    return [Product(node.name, number(module_of(node.name)), _weight(node, made_by, known)) for node in _nodes(graph)]


def layers_of(graph: GraphProto) -> Layers:
    """Return the place of the encoder's layers in a graph of `optkit.graph.export`, by the modules in its nodes' names."""
    return Layers.among((module_of(node.name) for node in _nodes(graph)), _metadata(graph, LAYERS_KEY))


def _metadata(graph: GraphProto, key: str) -> str:
    return next((entry.value for entry in graph.metadata_props if entry.key == key), "")


def kept_float(graph: GraphProto) -> frozenset[str]:
    """Return the names of the encoder's modules that a quantised graph leaves float on purpose."""
    return frozenset(filter(None, _metadata(graph, KEPT_KEY).split(",")))


def module_of(node: str) -> str:
    """The PyTorch module that a node comes from: `bert.encoder.layer.0.attention.self.query`."""
    return plain(node.removeprefix("/model/").rpartition("/")[0].replace("/", "."))


def _nodes(graph: GraphProto) -> list[NodeProto]:
    return [node for node in graph.node if node.op_type in ("MatMul", "Gemm")]


def _weight(node: NodeProto, made_by: dict[str, NodeProto], known: dict[str, TensorProto]) -> tuple[int, int] | None:
    name = node.input[1]
    while name not in known:
        source = made_by.get(name)
        if source is None or source.op_type not in _PLUMBING:
            return None
        name = source.input[0]
    dims = tuple(known[name].dims)
    return (dims[0], dims[1]) if len(dims) == 2 else None


def longest_sequence(graph: GraphProto) -> int | None:
    """Tokens that a graph of `optkit.graph.export` has positions for; None where it does not say.

    The position ids are a constant [1, length] of which the graph slices what it needs, or else the metadata tell.
    """
    told = _metadata(graph, LONGEST_KEY)
    if told:
        return int(told)
    known = constants(graph)
    for node in graph.node:
        table = known.get(node.input[0]) if node.op_type == "Slice" else None
        if table is not None and table.data_type == TensorProto.INT64 and len(table.dims) == 2 and table.dims[0] == 1:
            return int(table.dims[1])
    return None
