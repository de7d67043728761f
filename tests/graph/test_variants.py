"""Graphs for TensorRT compute what the graph they come from computes, and quantise what they are meant to."""

import json
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from optkit import Quantize
from optkit.compression import quantizers
from optkit.core.errors import InputError
from optkit.graph import passes, reference
from optkit.graph.audit import audit
from optkit.graph.export import export
from optkit.graph.products import layers_of, longest_sequence, module_of, products
from optkit.graph.tensorrt import embeddings, placement, ranges, variants
from optkit.graph.tensorrt.half_precision import to_16bit
from optkit.graph.tensorrt.placement import Placement
from optkit.graph.tensorrt.variants import FLOAT, INT8, Variant, write
from optkit.tasks.classification import Classification

from .families import classifier, texts
from .models import LENGTH, feed

pytestmark = pytest.mark.slow

FEEDS = [feed(8, LENGTH, seed) for seed in range(3)]
QKV = [f"/model/bert/encoder/layer.{layer}/attention/self/{name}" for layer in (0, 1) for name in ("query", "key", "value")]


@pytest.fixture(scope="module")
def prepared(exported, tmp_path_factory):
    """The quantised graph with measured ranges beside it."""
    return ranges.prepare(exported(is_quantised=True)[1], FEEDS[:2], tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def per_tensor(exported, tmp_path_factory):
    """One whose weights have a single scale each, with its ranges."""
    source = exported(is_quantised=True, weights="per_tensor")[1]
    return ranges.prepare(source, FEEDS[:2], tmp_path_factory.mktemp("per_tensor"))


@pytest.fixture(scope="module")
def answer(exported):
    """`path -> logits` of the last feed."""
    return lambda path: reference.infer(reference.load(path), FEEDS[2])


def noise(found, expected):
    return float(np.abs(found - expected).mean() / np.abs(expected - expected.mean()).mean())


@pytest.mark.parametrize("name", [name for name in INT8 if name != "bf16"])
@pytest.mark.parametrize("rest", [None, "fp16"])
def test_added_quantisers_move_the_logits_by_no_more_than_quantisation_may(
    prepared, per_tensor, answer, tmp_path, name, rest
):
    source = per_tensor if name.startswith("int8-out") else prepared
    written = write(source, Variant(rest, INT8[name].placement), tmp_path / "model.onnx")
    assert noise(answer(written.path), answer(source)) < 0.1
    assert noise(answer(written.path), answer(source)) > 0  # it is another graph


def test_fp16_computes_the_same_to_its_precision(exported, answer, tmp_path):
    written = write(exported()[1], FLOAT["fp16"], tmp_path / "model.onnx")
    assert 0 < noise(answer(written.path), answer(exported()[1])) < 5e-3
    assert answer(written.path).dtype == np.float32


def test_bf16_computes_the_same_to_its_precision(exported, answer, tmp_path):
    """ONNX Runtime multiplies no bf16 on a CPU, so ONNX's own reference runs it."""
    from onnx.reference import ReferenceEvaluator

    written = write(exported()[1], FLOAT["bf16"], tmp_path / "model.onnx")
    (found,) = ReferenceEvaluator(onnx.load(written.path)).run(None, FEEDS[2])
    assert 0 < noise(np.asarray(found, np.float32), answer(exported()[1])) < 5e-2


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_weights_are_stored_in_16_bits_and_layernorm_computes_in_32(exported, tmp_path, precision):
    graph = onnx.load(write(exported()[1], FLOAT[precision], tmp_path / "model.onnx").path).graph
    known = {tensor.name: tensor.data_type for tensor in graph.initializer}
    wanted = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
    assert {known[node.input[1]] for node in graph.node if node.op_type == "MatMul" and node.input[1] in known} == {wanted}
    norms = [node for node in graph.node if node.op_type == "LayerNormalization"]
    made_by = {node.output[0]: node for node in graph.node}
    assert len(norms) == 5
    for node in norms:
        assert made_by[node.input[0]].op_type == "Cast" and made_by[node.input[0]].attribute[0].i == TensorProto.FLOAT
        assert {known[name] for name in node.input[1:]} == {TensorProto.FLOAT}


def test_a_number_beyond_fp16_is_refused_and_fits_bf16(exported):
    model = onnx.load(exported()[1])
    weight = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("pooler.dense.weight"))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e6), weight.name))
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with pytest.raises(InputError, match=r"pooler\.dense\.weight holds .*, more than fp16 can \(65504"):
        to_16bit(model, "fp16")
    to_16bit(copy, "bf16")


def test_a_scale_too_small_for_fp16_does_not_become_zero(prepared, tmp_path):
    model = onnx.load(prepared)
    scale = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("query.weight.scale"))
    small = numpy_helper.to_array(scale).copy()
    small[0] = 1e-9
    scale.CopyFrom(numpy_helper.from_array(small, scale.name))
    to_16bit(model, "fp16")
    found = next(tensor for tensor in model.graph.initializer if tensor.name == scale.name)
    assert (numpy_helper.to_array(found) > 0).all()


def test_another_precision_is_refused(exported):
    with pytest.raises(InputError, match="16-bit precision 'fp8': expected one of fp16, bf16"):
        to_16bit(onnx.load(exported()[1]), "fp8")


@pytest.mark.parametrize(
    ("name", "pairs", "attention"),
    [("fp16", 20, 0), ("bf16", 20, 0), ("fp16-attention", 20 + 8, 4), ("fp16-outputs", 20 + 8 + 4, 4)],
)
def test_what_is_quantised_by_hand(prepared, tmp_path, name, pairs, attention):
    """20 as exported; query, key, value and probabilities of 2 layers; what 2 blocks a layer put out."""
    counts = write(prepared, INT8[name], tmp_path / "model.onnx").audit
    assert (counts["qdq_pairs"], counts["quantized_attention_products"]) == (pairs, attention)
    assert (counts["encoder_gemms"], counts["covered_gemms"]) == (12, 12)
    assert (counts["residuals"], counts["quantized_residuals"]) == (4, 4)


@pytest.mark.parametrize(("name", "quantised"), [("int8-out", 3), ("int8-out-all", 4)])
def test_what_is_quantised_in_front_of_biases_by_hand(per_tensor, tmp_path, name, quantised):
    """In each of 2 layers: behind query, output and second feed-forward GEMM, and behind the first one too; what keys and
    values put out is quantised in front of the product that reads it."""
    written = write(per_tensor, INT8[name], tmp_path / "model.onnx")
    assert written.audit["qdq_pairs"] == 20 + 8 + 2 * quantised
    assert (written.audit["quantized_attention_products"], written.audit["quantized_residuals"]) == (4, 4)
    graph = onnx.load(written.path).graph
    read_by = {name: node for node in graph.node for name in node.input}
    behind = Counter(read_by[gemm.output[0]].op_type for gemm in placement.gemms(graph))
    assert behind == Counter(QuantizeLinear=2 * quantised, Reshape=2 * 2, Add=2 * (4 - quantised))
    assert written.audit["folded_scales"] == 2


def test_query_key_and_value_put_out_one_scale(per_tensor, tmp_path):
    graph = onnx.load(write(per_tensor, Variant(None, INT8["int8-out"].placement), tmp_path / "m.onnx").path).graph
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found = ranges.read(per_tensor)
    for layer in (0, 1):
        names = [f"{name}/MatMul_output_0" for name in QKV[3 * layer : 3 * layer + 3]]
        first = [node for node in graph.node if node.op_type == "QuantizeLinear" and names[0] in node.input]
        moved = [node for node in graph.node if node.op_type == "QuantizeLinear" and "MatMul/input_1" in node.name]
        scales = {known[node.input[1]].item() for node in [*first, moved[layer]]}
        assert scales == {np.float32(max(found[name] for name in names) / 127).item()}


def test_values_without_their_bias_have_a_range_of_their_own(per_tensor):
    """What attention puts out without it is what the projection's quantiser reads then."""
    found = ranges.read(per_tensor)
    context = "/model/bert/encoder/layer.0/attention/self/Reshape_3_output_0"
    model = onnx.load(per_tensor)
    bias = next(node.input[0] for node in model.graph.node if node.name == f"{QKV[2]}/Add")
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(context))
    session = reference.onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    less = [np.abs(session.run([context], asked)[0] - known[bias]).max() for asked in FEEDS[:2]]
    assert 0.3 * max(less) < found[placement.without_bias(context)] <= 1.01 * max(less)


@pytest.mark.parametrize("name", ["albert", "mpnet", "roformer", "modernbert", "eurobert"])
def test_families_whose_gemms_write_int8(tmp_path, name):
    """Also those that rotate queries and keys between the GEMM and the product, or have one GEMM for all three."""
    model = classifier(name)
    quantizers.insert(model, Quantize(weights="per_tensor"))
    asked = [{key: tensor.numpy() for key, tensor in texts(model, 8, length).items()} for length in (16, 24)]
    feeds = [{**one, "token_type_ids": np.zeros_like(one["input_ids"])} for one in asked]
    quantizers.calibrate(model, lambda made: [made(**texts(made, 8, length)) for length in (16, 24)])
    source = ranges.prepare(export(model, tmp_path / "graph", 32, Classification), feeds, tmp_path)
    written = write(source, INT8["int8-out-all"], tmp_path / "written.onnx")
    found, expected = (reference.infer(reference.load(path), feeds[0]) for path in (written.path, source))
    assert noise(found, expected) < 0.2
    graph = onnx.load(written.path).graph
    read_by = {name: node for node in graph.node for name in node.input}
    assert {read_by[gemm.output[0]].op_type for gemm in placement.gemms(graph)} <= {"QuantizeLinear", "Reshape"}


def test_gemms_cannot_write_int8_with_a_scale_per_channel(prepared, tmp_path):
    with pytest.raises(InputError, match=r'12 GEMMs have weights with a scale per output channel.*weights="per_tensor"'):
        write(prepared, INT8["int8-out"], tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_graphs_are_told_apart_by_their_weights_scales(prepared, per_tensor, exported):
    assert [variants.is_per_tensor(path) for path in (prepared, per_tensor, exported()[1])] == [False, True, False]


def test_probabilities_have_the_scale_of_numbers_up_to_one(prepared, tmp_path):
    graph = onnx.load(write(prepared, Variant(None, INT8["fp16-attention"].placement), tmp_path / "m.onnx").path).graph
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    softmax = {node.output[0] for node in graph.node if node.op_type == "Softmax"}
    scales = [known[n.input[1]] for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] in softmax]
    assert scales == [np.float32(1 / 127)] * 2


def test_ranges_are_those_of_the_tensors(prepared):
    """The outputs of GEMMs in front of GELU have no range of their own."""
    found = ranges.read(prepared)
    assert len(found) == 10 and {f"{name}/Add_output_0" for name in QKV} <= set(found)
    model = onnx.load(prepared)
    name = f"{QKV[0]}/Add_output_0"
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    session = reference.onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    largest = max(float(np.abs(session.run([name], asked)[0]).max()) for asked in FEEDS[:2])
    assert 0.3 * largest < found[name] <= 1.01 * largest


def test_the_same_feeds_give_the_same_ranges(prepared, tmp_path):
    again = ranges.prepare(prepared, FEEDS[:2], tmp_path)
    assert ranges.read(again) == ranges.read(prepared)
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "ranges.json"}


def test_ranges_that_are_missing_are_named(exported, prepared, tmp_path):
    with pytest.raises(InputError, match=r"no range was measured for 10 tensors, such as /model/.*: quantised outputs and"):
        write(exported(is_quantised=True)[1], INT8["fp16-outputs"], tmp_path / "model.onnx")
    with pytest.raises(InputError, match="no inputs to measure ranges on"):
        ranges.measure(prepared, [])
    assert not list(tmp_path.iterdir())


def test_a_float_graph_in_the_place_of_a_quantised_one(exported, tmp_path):
    with pytest.raises(InputError, match="an encoder GEMM with a float input"):
        write(exported()[1], INT8["fp16"], tmp_path / "model.onnx")


def test_a_residual_branch_that_stays_float_is_found(prepared, monkeypatch, tmp_path):
    monkeypatch.setattr(placement, "_share_residual", lambda graph: None)
    with pytest.raises(InputError, match="only 0 of 4 residual branches are quantised"):
        write(prepared, INT8["fp16"], tmp_path / "model.onnx")


def test_products_by_hand(exported):
    graph = onnx.load(exported(is_quantised=True)[1]).graph
    found = products(graph)
    assert len(found) == 12 + 4 + 2
    assert [product.name for product in found if product.is_attention and product.layer == 1] == [
        "/model/bert/encoder/layer.1/attention/self/MatMul",
        "/model/bert/encoder/layer.1/attention/self/MatMul_1",
    ]
    first = next(product for product in found if product.name.endswith("layer.0/intermediate/dense/MatMul"))
    assert sorted(first.weight) == [64, 128]
    assert {product.layer for product in found} == {0, 1, None}
    number = layers_of(graph).number
    names = ("/model/bert/encoder/layer.11/x", "/model/pooler/Gemm")
    assert [number(module_of(name)) for name in names] == [11, None]
    assert longest_sequence(graph) == LENGTH


def test_a_graph_without_positions_is_refused(exported, tmp_path):
    model = onnx.load(exported()[1])
    for tensor in list(model.graph.initializer):
        if tensor.data_type == TensorProto.INT64 and list(tensor.dims) == [1, LENGTH]:
            table = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(table.astype(np.int32), tensor.name))
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(InputError, match=r"has no table of position ids.*Export it with optkit"):
        write(tmp_path / "other.onnx", FLOAT["fp32"], tmp_path / "model.onnx")


def test_only_a_graph_whose_whole_encoder_is_two_of_four_is_sparse(exported, tmp_path):
    path = exported()[1]
    assert not variants.is_sparse(path)
    model = onnx.load(path)
    known = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in known:
            weight = numpy_helper.to_array(known[node.input[1]]).copy()  # [in, out]
            weight[0::4] = weight[1::4] = 0
            known[node.input[1]].CopyFrom(numpy_helper.from_array(weight, node.input[1]))
    onnx.save(model, tmp_path / "sparse.onnx")
    assert variants.is_sparse(tmp_path / "sparse.onnx")
    assert write(tmp_path / "sparse.onnx", FLOAT["fp16"], tmp_path / "model.onnx").sparse
    assert not write(path, FLOAT["fp16"], tmp_path / "dense.onnx").sparse


def test_quantisers_can_be_placed_alone(prepared):
    """Without the residual's quantisers only attention changes."""
    model = onnx.load(prepared)
    placement.place(model, Placement(attention=True), ranges.read(prepared))
    added = {node.name for node in model.graph.node} - {node.name for node in onnx.load(prepared).graph.node}
    assert len(added) == 2 * 8 and all("/attention/self/MatMul" in name for name in added)
    assert json.loads(json.dumps(audit(prepared).to_dict()))["quantized_attention_products"] == 0


def test_embeddings_stored_as_int8_become_the_same_floats_again(exported, answer, tmp_path):
    """On the grid of 127ths of each row's largest value, as the exporter stores them."""
    model = onnx.load(exported()[1])
    tables = {node.input[0] for node in model.graph.node if node.op_type == "Gather" and "embeddings" in node.input[0]}
    for tensor in model.graph.initializer:
        if tensor.name in tables:
            table = numpy_helper.to_array(tensor)
            scale = np.abs(table).max(axis=1, keepdims=True) / np.float32(127)
            rounded = np.rint(table / np.where(scale > 0, scale, 1)) * scale
            tensor.CopyFrom(numpy_helper.from_array(rounded.astype(np.float32), tensor.name))
    onnx.save(model, tmp_path / "float.onnx")
    passes.store_embeddings_as_int8(model.graph)
    passes.remove_unused(model.graph)
    onnx.save(model, tmp_path / "int8.onnx")
    assert sum(tensor.data_type == TensorProto.INT8 for tensor in model.graph.initializer) == len(tables) == 3
    found = write(tmp_path / "int8.onnx", FLOAT["fp32"], tmp_path / "model.onnx")
    assert not any(tensor.data_type == TensorProto.INT8 for tensor in onnx.load(found.path).graph.initializer)
    np.testing.assert_allclose(answer(found.path), answer(tmp_path / "float.onnx"), atol=1e-6)
    assert embeddings.unfold(onnx.load(tmp_path / "float.onnx").graph) == 0
