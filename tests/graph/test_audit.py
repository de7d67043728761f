"""The audit counts what is in the file: numbers by hand, and faults put in by hand."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from optkit.core.errors import GateError, InputError
from optkit.graph.audit import audit
from optkit.graph.export import export
from optkit.models.families import encoder_linears
from optkit.tasks.classification import Classification

from .models import LENGTH, bert, quantised, sparse

pytestmark = pytest.mark.slow

QUERY = "/model/bert/encoder/layer.1/attention/self/query/MatMul"


def edited(path, tmp_path, change):
    """A copy of a graph with `change(graph)` applied."""
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, tmp_path / "edited.onnx")
    return tmp_path / "edited.onnx"


def test_a_quantised_graph_by_hand(exported):
    found = audit(exported(is_quantised=True)[1])
    assert (found.encoder_gemms, found.covered_gemms) == (12, 12)  # 2 layers of 6 Linear modules
    assert found.qdq_pairs == 8 + 12  # 4 activations a layer, one of them shared by three; 6 weights
    assert (found.attention_products, found.quantized_attention_products) == (4, 0)
    assert found.quantized
    assert found.uncovered == found.wrongly_quantized == found.bad_scales == ()
    found.check_quantised()
    assert json.loads(json.dumps(found.to_dict()))["covered_gemms"] == 12


def test_a_float_graph_covers_nothing(exported):
    found = audit(exported()[1])
    assert (found.qdq_pairs, found.encoder_gemms, found.covered_gemms, found.quantized) == (0, 12, 0, False)
    with pytest.raises(InputError, match="covers 0 of 12"):
        found.check_quantised()


def test_an_uncovered_gemm_is_named(exported, tmp_path):
    def bypass(graph):
        """Let one product read what its quantiser reads."""
        query = next(node for node in graph.node if node.name == QUERY)
        made_by = {node.output[0]: node for node in graph.node}
        query.input[0] = made_by[made_by[query.input[0]].input[0]].input[0]

    found = audit(edited(exported(is_quantised=True)[1], tmp_path, bypass))
    assert found.uncovered == (QUERY,)
    assert found.covered_gemms == 11
    with pytest.raises(InputError, match=f"{QUERY}: an encoder GEMM with a float input"):
        found.check_quantised()


def test_a_quantised_head_is_named(tmp_path):
    extra = [{"quantizer_name": "*classifier.input_quantizer", "cfg": {"num_bits": 8, "axis": None}}]
    found = audit(export(quantised(extra=extra), tmp_path, LENGTH, Classification))
    assert found.wrongly_quantized == ("/model/classifier/Gemm",)
    with pytest.raises(InputError, match="/model/classifier/Gemm: reads a quantised tensor, expected float"):
        found.check_quantised()


def test_a_quantised_layer_norm_is_named(exported, tmp_path):
    name = "/model/bert/encoder/layer.0/output/LayerNorm/LayerNormalization"

    def quantise(graph):
        """Let a LayerNorm read a dequantised tensor."""
        norm = next(node for node in graph.node if node.name == name)
        norm.input[0] = next(node.output[0] for node in graph.node if node.op_type == "DequantizeLinear")

    assert audit(edited(exported(is_quantised=True)[1], tmp_path, quantise)).wrongly_quantized == (name,)


@pytest.mark.parametrize(("value", "text"), [(0.0, "scale 0 to 0"), (np.nan, "scale nan to nan"), (-1.0, "scale -1 to -1")])
def test_an_impossible_scale_is_named_with_its_value(exported, tmp_path, value, text):
    def spoil(graph):
        quantiser = next(node for node in graph.node if node.op_type == "QuantizeLinear")
        scale = next(tensor for tensor in graph.initializer if tensor.name == quantiser.input[1])
        scale.CopyFrom(numpy_helper.from_array(np.float32(value), scale.name))

    with pytest.raises(InputError, match=f"QuantizeLinear: {text}, expected finite and above 0"):
        audit(edited(exported(is_quantised=True)[1], tmp_path, spoil)).check_quantised()


def test_sparsity_is_counted_along_the_input_in_float_and_int8(tmp_path):
    model = quantised()
    weight = model.bert.encoder.layer[0].intermediate.dense.weight  # [out, in]
    weight.data[:, 0::4] = 0
    weight.data[:, 1::4] = 0
    kept = audit(export(model, tmp_path, LENGTH, Classification)).sparse_groups_kept
    assert kept["bert.encoder.layer.0.intermediate.dense"] == 1.0
    assert kept["bert.encoder.layer.1.intermediate.dense"] < 0.1


def test_a_foreign_graph_is_refused(tmp_path):
    graph = onnx.helper.make_graph([], "empty", [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "empty.onnx")
    with pytest.raises(InputError, match="0 matrix products, none of them under the name of a layer"):
        audit(tmp_path / "empty.onnx")


@pytest.mark.parametrize("make", [bert, quantised])
def test_a_sparse_graph_passes(make, tmp_path):
    model = sparse(make())
    names = list(encoder_linears(model))
    found = audit(export(model, tmp_path, LENGTH, Classification))
    found.check_sparse(names)
    assert {name: found.sparse_groups_kept[name] for name in names} == dict.fromkeys(names, 1.0)
    assert found.sparse_groups_kept["bert.pooler.dense"] < 0.1


def test_a_broken_weight_in_the_graph_is_named(tmp_path):
    model = sparse(bert())
    names = list(encoder_linears(model))
    model.bert.encoder.layer[1].output.dense.weight.data[7, :8] = 1.0
    found = audit(export(model, tmp_path, LENGTH, Classification))
    with pytest.raises(GateError) as error:
        found.check_sparse([*names, "bert.encoder.layer.2.output.dense"])
    assert str(error.value).splitlines() == [
        "2:4 sparsity is broken in the graph in 2 of 13 weights:",
        "  bert.encoder.layer.1.output.dense: 99.9023% of its groups of four have two zeros",  # 2046 of 64 * 32
        "  bert.encoder.layer.2.output.dense: 0.0000% of its groups of four have two zeros",
    ]
