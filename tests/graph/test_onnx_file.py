"""Graphs whose weights lie in a file of their own: written, read, copied, and never looked for outside their folder."""

import os
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from optkit.core.errors import InputError
from optkit.engines import registry as engines
from optkit.graph import onnx_file, reference
from optkit.graph.audit import audit

WEIGHTS = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
FEED = {"x": np.ones((2, 64), np.float32)}


def model():
    """A product with weights [64, 32], which takes and gives float32."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["logits"], "/model/encoder/layer.0/MatMul")],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 32])],
        [numpy_helper.from_array(WEIGHTS, "weights")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def in_two_files(folder):
    """The product as PyTorch's exporter writes large models: a file for each tensor."""
    path = folder / "model.onnx"
    onnx.save(model(), path, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0)
    return path


def tell(path, **told):
    """Change what a graph says of the place of its weights."""
    changed = onnx.load(path, load_external_data=False)
    tensor = changed.graph.initializer[0]
    told = {entry.key: entry.value for entry in tensor.external_data} | told
    del tensor.external_data[:]
    for key, value in told.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(changed.SerializeToString())


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_small_graph_is_one_file_as_onnx_writes_it(tmp_path):
    onnx_file.save(model(), tmp_path / "model.onnx")
    assert names(tmp_path) == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == model().SerializeToString()
    assert onnx_file.load(tmp_path / "model.onnx") == model()
    assert onnx_file.data_files(tmp_path / "model.onnx") == []


def test_from_the_threshold_on_weights_lie_beside_the_graph(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    for largest, expected in ((WEIGHTS.nbytes + 1, 1), (WEIGHTS.nbytes, 2), (WEIGHTS.nbytes + 1, 1)):
        monkeypatch.setattr(onnx_file, "LARGEST", largest)
        onnx_file.save(model(), path)
        # nothing of a larger graph that was there stays
        assert names(tmp_path) == ["model.onnx", "model.onnx.data"][:expected]
        assert onnx_file.load(path) == model()
        assert onnx_file.is_external(onnx_file.structure(path)) == (expected == 2)
        np.testing.assert_allclose(reference.load(path).run(None, FEED)[0], FEED["x"] @ WEIGHTS, rtol=1e-5)


def test_tensors_in_files_of_their_own_become_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "LARGEST", 1)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    path = in_two_files(scratch)
    assert names(scratch) == ["model.onnx", "weights"]
    onnx_file.save(onnx_file.load(path), path)
    moved = onnx_file.move(path, tmp_path)
    assert names(tmp_path) == ["model.onnx", "model.onnx.data", "scratch"] and names(scratch) == ["weights"]
    onnx.checker.check_model(str(moved), full_check=True)
    assert numpy_helper.to_array(onnx.load(moved).graph.initializer[0]).tolist() == WEIGHTS.tolist()


def test_a_graph_that_is_moved_takes_the_place_of_a_larger_one(tmp_path, monkeypatch):
    small = tmp_path / "small"
    small.mkdir()
    onnx_file.save(model(), small / "model.onnx")
    monkeypatch.setattr(onnx_file, "LARGEST", 1)
    onnx_file.save(model(), tmp_path / "model.onnx")
    onnx_file.move(small / "model.onnx", tmp_path)
    assert names(tmp_path) == ["model.onnx", "small"]
    assert onnx_file.load(tmp_path / "model.onnx") == model()


def test_a_copy_is_whole(tmp_path):
    (tmp_path / "copies").mkdir()
    path = in_two_files(tmp_path)
    tell(path, location="parts/weights")
    (tmp_path / "parts").mkdir()
    shutil.move(tmp_path / "weights", tmp_path / "parts")
    copy = onnx_file.copy(path, tmp_path / "copies" / "other.onnx")
    shutil.rmtree(tmp_path / "parts")
    np.testing.assert_allclose(reference.load(copy).run(None, FEED)[0], FEED["x"] @ WEIGHTS, rtol=1e-5)


def test_weights_with_several_names_are_read(tmp_path):
    """Scratch repositories link their files, which onnx's own reader takes for an attack."""
    path = in_two_files(tmp_path)
    os.link(tmp_path / "weights", tmp_path / "second")
    with pytest.raises(onnx.checker.ValidationError, match="hard links"):
        onnx.load(path)
    assert onnx_file.load(path) == model()


def _outside(folder):
    target = folder.parent / "secret"
    target.write_bytes(WEIGHTS.tobytes())
    return target


READERS = {
    "load": onnx_file.load,
    "structure": onnx_file.structure,
    "data_files": onnx_file.data_files,
    "audit": audit,
    "build_engine": lambda path: engines.build_engine(path, "onnxruntime", "fp32", path.parent / "engine"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("place", ["..", "absolute", "link", "back in"])
def test_weights_outside_the_folder_are_refused(reader, place, tmp_path):
    folder = tmp_path / "graph"
    folder.mkdir()
    path, secret = in_two_files(folder), _outside(folder)
    (folder / "link").symlink_to(secret)
    places = {"..": "../secret", "absolute": str(secret), "link": "link", "back in": "../graph/weights"}
    tell(path, location=places[place])
    with pytest.raises(InputError, match=rf"model\.onnx: 'weights' lies in '{places[place]}', which leads out of"):
        READERS[reader](path)
    assert names(folder) == ["link", "model.onnx", "weights"]


@pytest.mark.parametrize("place", ["../secret", "absolute", "link"])
def test_the_runtimes_refuse_them_too(place, tmp_path):
    """An engine's graph is opened by its runtime alone where it is served."""
    folder = tmp_path / "graph"
    folder.mkdir()
    path, secret = in_two_files(folder), _outside(folder)
    (folder / "link").symlink_to(secret)
    tell(path, location=str(secret) if place == "absolute" else place)
    with pytest.raises(Exception, match="External data path"):
        reference.load(path)
    openvino = pytest.importorskip("openvino")
    with pytest.raises(RuntimeError, match=r"External data|external data|outside the base directory"):
        openvino.Core().read_model(str(path))


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"location": "gone"}, r"lies in 'gone', and there is no such file in .*; copy it there"),
        ({"length": "9000"}, r"weights: has 8192 bytes, expected 9000 from 0 on for 'weights' of model\.onnx"),
        ({"offset": "4"}, r"weights: has 8192 bytes, expected 8192 from 4 on"),
        ({"offset": "-4"}, r"expected 8192 from -4 on"),
        ({"length": "many"}, r"model\.onnx: 'weights': invalid literal .*; export the model again"),
    ],
)
def test_a_file_that_is_missing_or_too_short_is_named(told, message, tmp_path):
    path = in_two_files(tmp_path)
    tell(path, **told)
    with pytest.raises(InputError, match=message):
        onnx_file.load(path)
