"""Graphs as PyTorch modules: of every family, as written, fused, without padding, and exported with sizes as symbols."""

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from optkit.core.errors import InputError
from optkit.engines.torch.compiling import exported as traced
from optkit.engines.torch.fusions import fuse
from optkit.engines.torch.onnx_module import OnnxModule
from optkit.engines.torch.packed_batch import INPUTS, Packing, filled_up
from optkit.engines.torch.packing import pack
from optkit.graph import onnx_file, reference
from optkit.graph.export import export
from optkit.graph.tensorrt.half_precision import TYPES, to_16bit
from optkit.tasks.classification import Classification
from tests.graph.families import FAMILIES, classifier, texts
from tests.graph.models import feed

PACKED = {"albert", "bigbird", "distilbert", "xlm-roberta"}
"""Families whose attention is masked by padding alone."""
SHAPES = ((1, 9), (3, 24))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """Name of a family, its graph, and batches with what the graph makes of them."""
    model = classifier(request.param)
    graph = export(model, tmp_path_factory.mktemp("graph"), 32, Classification)
    handle, batches = reference.load(graph), []
    for shape in SHAPES:
        batch = {name: tensor.numpy() for name, tensor in texts(model, *shape).items()}
        batch.setdefault("token_type_ids", np.zeros(shape, np.int64))
        batches.append((batch, reference.infer(handle, batch)))
    return request.param, graph, batches


def run(module, batch):
    """The module's output for a batch; what a packed graph takes beside it is made of the mask."""
    full = {**batch, **dict(zip(INPUTS, Packing.of(batch["attention_mask"]), strict=True))}
    with torch.no_grad():
        return module(*(torch.from_numpy(np.ascontiguousarray(full[name])) for name in module.input_names)).numpy()


@pytest.mark.slow
def test_a_graph_of_any_family_is_computed(family):
    _, graph, batches = family
    module = OnnxModule(onnx_file.load(graph).graph)
    for batch, expected in batches:
        np.testing.assert_allclose(run(module, batch), expected, atol=1e-5)


@pytest.mark.slow
def test_so_is_one_that_is_fused_and_packed(family):
    name, graph, batches = family
    model = onnx_file.load(graph)
    fuse(model.graph, TensorProto.FLOAT)
    assert pack(model.graph) == (name in PACKED)
    module = OnnxModule(model.graph)
    assert set(INPUTS).issubset(module.input_names) == (name in PACKED)
    for batch, expected in batches:
        np.testing.assert_allclose(run(module, batch), expected, atol=1e-5)


@pytest.mark.slow
def test_it_is_exported_with_sizes_as_symbols(family):
    _, graph, batches = family
    model = onnx_file.load(graph)
    fuse(model.graph, TensorProto.FLOAT)
    pack(model.graph)
    module = OnnxModule(model.graph)
    program = traced(module, (4, 16), 4, 32, graph).module()
    program.input_names = module.input_names
    for batch, expected in batches:
        np.testing.assert_allclose(run(program, batch), expected, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_in_16_bits_it_is_close(exported, precision):
    _, graph = exported()
    model, batch = onnx_file.load(graph), feed(3, 12, 0)
    fuse(model.graph, TensorProto.FLOAT)
    to_16bit(model, precision)
    expected = reference.infer(reference.load(graph), batch)
    assert np.abs(run(OnnxModule(model.graph), batch) - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("packed", [False, True])
def test_int8_products_are_exact(exported, packed):
    _, graph = exported(is_quantised=True)
    model, batch = onnx_file.load(graph), feed(3, 12, 0)
    counts = fuse(model.graph, TensorProto.FLOAT)
    assert not packed or pack(model.graph)
    operators = [node.op_type for node in model.graph.node]
    layers = counts["attention"]
    assert counts == {"attention": layers, "int8_products": 6 * layers, "shared_products": layers}
    # query, key and value are one product, and GELU went into the one before it
    assert operators.count("Int8Linear") == 4 * layers and "DequantizeLinear" not in operators and "Erf" not in operators
    np.testing.assert_allclose(
        run(OnnxModule(model.graph), batch), reference.infer(reference.load(graph), batch), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_scales_of_int8_products_keep_their_bits(exported, precision):
    """A product of two scales is small: FP16 has few digits there, or none."""
    model = onnx_file.load(exported(is_quantised=True)[1])
    fuse(model.graph, TYPES[precision][0])
    to_16bit(model, precision)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "Int8Linear"]
    assert products and {types[name] for node in products for name in node.input[2:]} == {TensorProto.FLOAT}
    assert TYPES[precision][0] in types.values()


def test_an_operator_without_a_function_is_named():
    node = helper.make_node("Sinh", ["input_ids"], ["logits"])
    value = helper.make_tensor_value_info
    shape = ["batch", "sequence"]
    graph = helper.make_graph(
        [node], "g", [value("input_ids", TensorProto.INT64, shape)], [value("logits", TensorProto.FLOAT, shape)]
    )
    with pytest.raises(InputError, match="the torch engine has no Sinh"):
        OnnxModule(graph)


def test_a_size_that_depends_on_an_input_is_refused_in_words():
    value, shape = helper.make_tensor_value_info, ["batch", "sequence"]
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["input_ids", "axes"], ["largest"], keepdims=0),
            helper.make_node("Unsqueeze", ["largest", "zero"], ["size"]),
            helper.make_node("Slice", ["input_ids", "zero", "size", "one"], ["cut"]),
            helper.make_node("Cast", ["cut"], ["logits"], to=TensorProto.FLOAT),
        ],
        "g",
        [value("input_ids", TensorProto.INT64, shape)],
        [value("logits", TensorProto.FLOAT, shape)],
        [
            numpy_helper.from_array(np.array(array, np.int64), name)
            for name, array in {"axes": [0, 1], "zero": [0], "one": [1]}.items()
        ],
    )
    with pytest.raises(InputError, match=r"made\.onnx cannot be compiled by PyTorch: a size or an axis"):
        traced(OnnxModule(graph), (2, 8), 4, 32, Path("made.onnx"))


def test_where_the_tokens_of_a_batch_are():
    packing = Packing.of(np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 1, 1]]))
    assert packing.tokens[:9].tolist() == [0, 1, 4, 5, 6, 7, 9, 10, 11]
    assert not packing.tokens[9:].any() and len(packing.tokens) == filled_up(9) == 64
    assert packing.places.tolist() == [[0, 1, 0, 0], [2, 3, 4, 5], [0, 6, 7, 8]]
    assert packing.ends.tolist() == [0, 2, 6, 9, 64]


@pytest.mark.parametrize("tokens", [1, 64, 65, 1000, 12288, 12289, 100_000])
def test_little_is_filled_up(tokens):
    assert tokens <= filled_up(tokens) < tokens + max(64, tokens / 15)
