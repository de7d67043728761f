"""Rewrites of the graph: what they store differently computes the same."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from optkit.compression.quantizers import round_embeddings
from optkit.graph import passes, reference
from optkit.graph.export import export
from optkit.tasks.classification import Classification

from .models import LENGTH, bert, feed, torch_logits

WORDS = "model.bert.embeddings.word_embeddings.weight"


def lookup(table):
    """A graph that looks rows up in a table [words, width]."""
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["batch", "sequence", table.shape[1]])
    node = helper.make_node("Gather", ["table", "ids"], ["rows"], name="/embeddings/Gather")
    graph = helper.make_graph([node], "lookup", [ids], [rows], [numpy_helper.from_array(table, "table")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def on_the_grid(words=50, width=8):
    """Rows of whole multiples of a scale of their own, their largest 127 of it."""
    integers = np.random.default_rng(0).integers(-127, 128, (words, width))
    integers[:, 3] = 127
    scales = np.random.default_rng(1).uniform(1e-4, 2.0, (words, 1))
    return (integers * scales).astype(np.float32), integers, scales


def test_a_table_on_the_grid_is_stored_as_int8_and_read_the_same(tmp_path):
    table, integers, scales = on_the_grid()
    model = lookup(table)
    passes.clean(model.graph)
    onnx.checker.check_model(model, full_check=True)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert set(stored) == {"table.int8", "table.scale"}
    assert stored["table.int8"].dtype == np.int8 and np.array_equal(stored["table.int8"], integers)
    assert np.allclose(stored["table.scale"], scales, rtol=1e-6)
    onnx.save(model, tmp_path / "lookup.onnx")
    session = reference.load(tmp_path / "lookup.onnx")
    ids = np.array([[0, 49, 7], [7, 7, 12]])
    (found,) = session.run(None, {"ids": ids})
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, table[ids], rtol=1e-6, atol=0)


def test_rows_are_read_before_they_are_scaled():
    model = lookup(on_the_grid()[0])
    passes.clean(model.graph)
    assert [node.op_type for node in model.graph.node] == ["Gather", "Cast", "Gather", "Mul"]


@pytest.mark.parametrize("change", ["a value between two steps", "another type", "three dimensions"])
def test_a_table_that_is_not_on_the_grid_stays_float(change):
    table = on_the_grid()[0]
    if change == "a value between two steps":
        table[17, 5] += 0.3 * np.abs(table[17]).max() / 127
    if change == "another type":
        table = table.astype(np.float64)
    if change == "three dimensions":
        table = table.reshape(5, 10, 8)
    model = lookup(table)
    passes.store_embeddings_as_int8(model.graph)
    assert [node.op_type for node in model.graph.node] == ["Gather"]
    assert np.array_equal(numpy_helper.to_array(model.graph.initializer[0]), table)


def test_a_row_of_zeros_is_on_every_grid():
    table = on_the_grid()[0]
    table[4] = 0
    model = lookup(table)
    passes.store_embeddings_as_int8(model.graph)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert not stored["table.int8"][4].any() and np.isfinite(stored["table.scale"]).all()


def test_rounded_embeddings_are_int8_in_the_graph_and_others_float(tmp_path):
    model = bert()
    plain = export(model, tmp_path / "plain", LENGTH, Classification)
    round_embeddings(model)
    rounded = export(model, tmp_path / "rounded", LENGTH, Classification)  # compares itself with the model, too
    tables = [{tensor.name: tensor for tensor in onnx.load(path).graph.initializer} for path in (plain, rounded)]
    assert tables[0][WORDS].data_type == TensorProto.FLOAT and f"{WORDS}.int8" not in tables[0]
    assert tables[1][f"{WORDS}.int8"].data_type == TensorProto.INT8 and WORDS not in tables[1]
    kept = ("position_embeddings", "token_type_embeddings")
    assert all(any(part in name and not name.endswith("int8") for name in tables[1]) for part in kept)
    found = reference.infer(reference.load(rounded), feed(4, 9))
    np.testing.assert_allclose(found, torch_logits(model, feed(4, 9)), rtol=1e-4, atol=1e-5)
    assert not np.allclose(found, reference.infer(reference.load(plain), feed(4, 9)), atol=1e-6)
    saved = plain.stat().st_size - rounded.stat().st_size
    words, width = model.config.vocab_size, model.config.hidden_size
    assert saved == pytest.approx(words * (3 * width - 4), abs=1000)


def test_the_graph_holds_what_the_model_holds(tmp_path):
    model = bert()
    round_embeddings(model)
    tensors = onnx.load(export(model, tmp_path, LENGTH, Classification)).graph.initializer
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}
    restored = stored[f"{WORDS}.int8"].astype(np.float32) * stored[f"{WORDS}.scale"]
    table = model.get_input_embeddings().weight.detach()
    assert torch.allclose(torch.from_numpy(restored), table, rtol=1e-6, atol=0)
