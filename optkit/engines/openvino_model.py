"""The files of an OpenVINO engine, `model.xml` and `model.bin`: the model in them, and where its weights lie."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from optkit.engines import packed_weights

if TYPE_CHECKING:
    import openvino

FILE, WEIGHTS = "model.xml", "model.bin"

_PLUMBING = ("Convert", "Subtract", "Multiply", "FakeQuantize", "Transpose", "Reshape")
"""Node types that may stand between a stored weight and its product."""

_CONSTANT = re.compile(r'<data element_type="\w+" shape="([\d, ]+)" offset="(\d+)" size="(\d+)"')
"""How OpenVINO writes where a constant with dimensions lies."""


def read(core: "openvino.Core", folder: Path) -> "openvino.Model":
    """The stored model, its weights expanded where they are packed."""
    import openvino

    if not packed_weights.is_packed(folder / WEIGHTS):
        return core.read_model(str(folder / FILE))
    weights = openvino.Tensor(packed_weights.expanded(folder / WEIGHTS))
    return core.read_model((folder / FILE).read_text(encoding="utf-8"), weights)


def constants(path: Path) -> Iterator[packed_weights.Place]:
    """Where the constants of a `model.xml` lie in its `model.bin`."""
    for shape, offset, length in _CONSTANT.findall(path.read_text(encoding="utf-8")):
        yield packed_weights.Place(int(offset), tuple(map(int, shape.split(","))), int(length))


def stored_weights(model: "openvino.Model") -> Iterator[NDArray[Any]]:
    """What the artefact stores for its products, [out, in]."""
    for product in (node for node in model.get_ordered_ops() if node.get_type_name() == "MatMul"):
        node, transposed = product.input_value(1).get_node(), product.get_attributes()["transpose_b"]
        while node.get_type_name() in _PLUMBING:
            transposed ^= node.get_type_name() == "Transpose"
            node = node.input_value(0).get_node()
        if node.get_type_name() == "Constant" and len(node.get_output_shape(0)) == 2:
            yield node.get_data() if transposed else node.get_data().T
