"""Graph files: `model.onnx`, and from 2 GiB of weights on `model.onnx.data` beside it, as protobuf holds no more.

Every graph is read, written and copied here. Where a graph says that its weights lie is a claim of whoever wrote the file:
only files in its own folder are read.
"""

import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper

from optkit.core.errors import InputError

LARGEST = 2**31 - 2**26
"""Bytes of weights from which on they go into a file of their own: 2 GiB, less some room for the nodes."""
DATA = ".data"
"""What the name of that file adds to the graph's."""
SMALL = 1024
"""Bytes of a tensor below which it stays in the graph: runtimes look at shapes and axes before they read any weight."""
_PAGE = 4096
"""Bytes of a page: a tensor that begins on one can be mapped into memory."""


def load(path: Path) -> ModelProto:
    """Read a graph with all its weights.

    Raises:
        InputError: weights lie outside the graph's folder, or their file is missing or too short.
    """
    model = structure(path)
    for tensor in _external(model.graph):
        tensor.raw_data = _content(tensor, path)
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
    return model


def structure(path: Path) -> ModelProto:
    """Read a graph, of its weights only those in the graph's file itself.

    Raises:
        InputError: weights lie outside the graph's folder, or their file is missing.
    """
    model = onnx.load(str(path), load_external_data=False)
    for tensor in _external(model.graph):
        _data_file(tensor, path)
    return model


def save(model: ModelProto, path: Path) -> None:
    """Write a graph. From `LARGEST` on its weights move from the model in memory to a file beside the graph."""
    data = path.with_name(path.name + DATA)
    data.unlink(missing_ok=True)
    if sum(_size(tensor) for tensor in model.graph.initializer if tensor.HasField("raw_data")) >= LARGEST:
        _move_weights(model.graph, data)
    path.write_bytes(model.SerializeToString())


def data_files(path: Path) -> list[Path]:
    """The files beside a graph that its weights lie in.

    Raises:
        InputError: as `structure` does.
    """
    model = onnx.load(str(path), load_external_data=False)
    return sorted({_data_file(tensor, path) for tensor in _external(model.graph)})


def is_external(model: ModelProto) -> bool:
    """Whether weights of a graph, as `structure` reads it, lie in another file."""
    return next(_external(model.graph), None) is not None


def copy(graph: Path, target: Path) -> Path:
    """Copy a graph to a path, and the files that its weights lie in beside it under their own names; returns the path.

    Nothing is linked: onnx's own reader refuses weights in a file with several names.

    Raises:
        InputError: as `structure` does.
    """
    for source in data_files(graph):
        placed = target.parent / source.relative_to(graph.parent)
        placed.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, placed)
    shutil.copy2(graph, target)
    return target


def move(graph: Path, folder: Path) -> Path:
    """Move a graph that `save` wrote to a folder, in the place of one that is there; returns its new path.

    Whoever is killed meanwhile leaves no graph there: one with the weights of another would be wrong without a sign of it.
    """
    target = folder / graph.name
    source, data = (path.with_name(path.name + DATA) for path in (graph, target))
    target.unlink(missing_ok=True)
    data.unlink(missing_ok=True)
    if source.exists():
        os.replace(source, data)
    os.replace(graph, target)
    return target


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Every tensor that a graph stores, those of its nodes and of graphs inside them too."""
    yield from graph.initializer
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from [attribute.t, *attribute.tensors]
        for inner in [attribute.g, *attribute.graphs]:
            yield from _tensors(inner)


def _external(graph: GraphProto) -> Iterator[TensorProto]:
    return (tensor for tensor in _tensors(graph) if tensor.data_location == TensorProto.EXTERNAL)


def _size(tensor: TensorProto) -> int:
    """Bytes of a tensor's numbers."""
    return math.prod(tensor.dims) * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _told(tensor: TensorProto) -> dict[str, str]:
    """Where a tensor lies: `location`, and perhaps `offset` and `length`."""
    return {entry.key: entry.value for entry in tensor.external_data}


def _data_file(tensor: TensorProto, graph: Path) -> Path:
    """The file that a tensor lies in, below the graph's folder."""
    location = _told(tensor).get("location", "")
    path, folder = graph.parent / location, graph.parent.resolve()
    if Path(location).is_absolute() or ".." in Path(location).parts or not path.resolve().is_relative_to(folder):
        raise InputError(
            f"{graph}: {tensor.name!r} lies in {location!r}, which leads out of the graph's folder; expected a file beside "
            "it. Do not use graphs of people you do not trust; export the model again"
        )
    if not path.is_file():
        raise InputError(
            f"{graph}: {tensor.name!r} lies in {location!r}, and there is no such file in {graph.parent}; copy it there: "
            f"a graph over 2 GiB is {graph.name} and its weights"
        )
    return path


def _content(tensor: TensorProto, graph: Path) -> bytes:
    """The bytes of a tensor that lies in another file.

    onnx's own reader would refuse an engine while a scratch repository has hard links to its files.
    """
    path, told = _data_file(tensor, graph), _told(tensor)
    try:
        start, length = int(told.get("offset", 0)), int(told.get("length", _size(tensor)))
    except ValueError as error:
        raise InputError(f"{graph}: {tensor.name!r}: {error}; export the model again") from error
    if start < 0 or length < 0 or start + length > path.stat().st_size:
        raise InputError(
            f"{path}: has {path.stat().st_size} bytes, expected {length} from {start} on for {tensor.name!r} of "
            f"{graph.name}; the file is cut short, or another graph's. Export the model again"
        )
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)


def _move_weights(graph: GraphProto, data: Path) -> None:
    """Write the larger tensors to a file, and leave in the graph where they are."""
    with data.open("wb") as file:
        for tensor in graph.initializer:
            if not tensor.HasField("raw_data") or _size(tensor) < SMALL:
                continue
            file.seek(-file.tell() % _PAGE, os.SEEK_CUR)
            start = file.tell()
            length = file.write(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in {"location": data.name, "offset": start, "length": length}.items():
                tensor.external_data.add(key=key, value=str(value))
