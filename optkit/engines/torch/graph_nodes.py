"""The nodes of a graph by what they make and what they read, for changing it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, numpy_helper

from optkit.graph.passes import constants, producers
from optkit.graph.tensorrt.neighbours import readers


class Nodes:
    """The nodes of a graph by what they make and what they read.

    Args:
        graph: nothing is changed in it before `replace`.
    """

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph
        self.made_by, self.known = producers(graph), constants(graph)
        self.readers = readers(graph)
        self.outputs = {output.name for output in graph.output}

    def source(self, name: str, *operators: str) -> NodeProto | None:
        """Return the node that makes a tensor, if it is one of these operators."""
        node = self.made_by.get(name)
        return node if node is not None and node.op_type in operators else None

    def only_reader(self, name: str, *operators: str) -> NodeProto | None:
        """Return the one node that reads a tensor, if there is no other and it is one of these operators."""
        found = self.readers.get(name, [])
        alone = len(found) == 1 and name not in self.outputs and found[0].op_type in operators
        return found[0] if alone else None

    def array(self, name: str) -> NDArray[Any] | None:
        """Return a constant; None where it is none."""
        return numpy_helper.to_array(self.known[name]) if name in self.known else None

    def number(self, name: str) -> float | None:
        """Return a constant of one entry; None where it is none."""
        found = self.array(name)
        return None if found is None or found.size != 1 else float(found.reshape(()))

    def constant_input(self, node: NodeProto) -> NDArray[Any] | None:
        """Return the constant of a node that has one and one computed input; None for another node."""
        constant = [name for name in node.input if name in self.known]
        return self.array(constant[0]) if len(constant) == 1 and len(node.input) == 2 else None

    def add_constant(self, name: str, array: NDArray[Any]) -> str:
        """Put a constant into the graph, and return its name."""
        if name not in self.known:
            tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
            self.graph.initializer.append(tensor)
            self.known[name] = tensor
        return name

    def replace(self, last: NodeProto, *made: NodeProto) -> None:
        """Put nodes in the place of one; what only fed it is left for `remove_unused`."""
        place = next(at for at, node in enumerate(self.graph.node) if node.output[:] == last.output[:])
        del self.graph.node[place]
        for offset, node in enumerate(made):
            self.graph.node.insert(place + offset, node)
