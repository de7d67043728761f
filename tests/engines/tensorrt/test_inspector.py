"""What a plan is made of: read from real builds, and from what other versions write, by hand."""

import json

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from optkit import Quantize
from optkit.compression import quantizers
from optkit.engines.candidate import Candidate, judge
from optkit.engines.tensorrt import builder, inspector
from optkit.engines.tensorrt.inspector import Layer, summary
from optkit.engines.tensorrt.profiles import Settings
from optkit.graph.export import export
from optkit.graph.products import Product
from optkit.graph.tensorrt import ranges
from optkit.graph.tensorrt.variants import INT8, write
from optkit.tasks.classification import Classification
from tests.graph.models import LENGTH, VOCABULARY, as_tensors, feed

pytestmark = pytest.mark.slow

QUERY, FIRST, SECOND = "/layer.0/query/MatMul", "/layer.0/self/MatMul", "/layer.0/self/MatMul_1"
PRODUCTS = [Product(QUERY, 0, (4, 8)), Product(FIRST, 0, None), Product(SECOND, 0, None), Product("/head", None, (4, 2))]


def found(planned, precision, variant=None):
    written, plan = planned(precision, variant)
    lines = [text for _, text in plan.build_log.lines]
    return summary(inspector.from_log(lines), written.products, lines)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_float_plan_multiplies_in_what_its_graph_says(planned, precision):
    seen = found(planned, precision)
    assert seen["gemm_precisions"] == {precision: 14}  # 2 layers of 6, the pooler and the classifier
    assert (seen["int8_gemm_share"], seen["unplaced_gemms"]) == (0, [])


OUTPUTS = {"int8-out": {"int8": 10, "fp16": 2 + 1}, "int8-out-all": {"int8": 12, "fp16": 1}}
"""Types that the GEMMs write, those of 2 layers and of the pooler; the classifier writes float32."""


@pytest.mark.parametrize("variant", INT8)
def test_every_gemm_of_the_encoder_is_int8(planned, variant):
    seen = found(planned, "int8", variant)
    rest = "bf16" if variant == "bf16" else "fp16"
    assert seen["gemm_outputs"] == {**OUTPUTS.get(variant, {rest: 13}), "fp32": 1}
    assert seen["gemm_precisions"] == {"int8": 12, rest: 2}
    encoder, head = 128 * 2 * (4 * 64 * 64 + 2 * 64 * 128), 64 * 64 + 64 * 3
    assert seen["int8_gemm_share"] == pytest.approx(encoder / (encoder + head))


@pytest.mark.parametrize(("variant", "int8"), [("int8-out", 5), ("int8-out-all", 6)])
def test_a_layer_of_bert_base_writes_int8(base_layer, cache, tmp_path, variant, int8):
    written = write(base_layer, INT8[variant], tmp_path / "model.onnx")
    plan = builder.build(written.path, Settings(timing_cache=cache), written.longest, False)
    lines = [text for _, text in plan.build_log.lines]
    seen = summary(inspector.from_log(lines), written.products, lines)
    assert seen["gemm_outputs"] == {"int8": int8, "fp16": 7 - int8, "fp32": 1}
    assert (seen["fused_attention"], seen["int8_attention"]) == ("1 of 1", "1 of 1")


@pytest.fixture(scope="module")
def base_layer(tmp_path_factory):
    """The quantised graph of one layer of BERT-base's width, with its ranges."""
    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=1, vocab_size=VOCABULARY, max_position_embeddings=LENGTH)
    model = BertForSequenceClassification(config).eval()
    quantizers.insert(model, Quantize(weights="per_tensor", gelu_clip=10.0))
    quantizers.calibrate(model, lambda made: made(**as_tensors(feed(2, LENGTH))))
    graph = export(model, tmp_path_factory.mktemp("base"), LENGTH, Classification)
    return ranges.prepare(graph, [feed(2, LENGTH)], tmp_path_factory.mktemp("prepared"))


def test_attention_is_one_kernel_in_16_bits_and_in_int8_where_all_of_it_is_quantised(planned):
    assert found(planned, "fp32")["fused_attention"] == "0 of 2"
    assert found(planned, "fp16")["fused_attention"] == found(planned, "int8", "fp16")["fused_attention"] == "2 of 2"
    assert found(planned, "int8", "fp16")["int8_attention"] == "0 of 2"
    for variant in ("fp16-attention", "fp16-outputs", "int8-out", "int8-out-all"):
        assert found(planned, "int8", variant)["fused_attention"] == "2 of 2"
        assert found(planned, "int8", variant)["int8_attention"] == "2 of 2"


def test_without_a_gpu_no_tactic_is_said_to_be_sparse_or_not(planned):
    assert found(planned, "int8")["sparse_layers_chosen"] is None
    assert found(planned, "int8")["sparse_layers_eligible"] is None


def layer(name, tactic, onnx, constants=(), inputs=("int8",)):
    return Layer(name, "gemm", inputs, ("fp16",), tactic, onnx, constants)


def test_shares_by_hand():
    layers = [
        layer("a", "sm80_xmma_gemm_i8", (QUERY,), ((32, "int8"), (1, "fp32"))),
        layer("scale", "kgen", (QUERY,), ((8, "fp16"),)),  # names the product, too small to hold its weight
        layer("b", "sm80_xmma_gemm_f16", ("/head",), ((8, "fp16"),)),
        layer("mha", "fused", (FIRST, SECOND), inputs=("int8", "int8", "int8")),
    ]
    seen = summary(layers, PRODUCTS)
    assert seen["int8_gemm_share"] == pytest.approx(128 * 32 / (128 * 32 + 8))
    assert seen["gemm_precisions"] == {"fp16": 1, "int8": 1}
    assert (seen["fused_attention"], seen["int8_attention"]) == ("1 of 1", "1 of 1")


def test_sparse_is_what_a_tactics_name_says_and_not_what_was_eligible():
    eligible = ["(Sparsity) Found 12 layer(s) eligible for sparse tactics: a, b"]
    dense = [layer("a", "sm80_xmma_gemm_i8", (QUERY,), ((32, "int8"),))]
    seen = summary(dense, PRODUCTS, eligible)
    assert (seen["sparse_layers_eligible"], seen["sparse_layers_chosen"]) == (12, 0)
    for tactic in ("sm80_xmma_sparse_gemm_i8", "ampere_spmma_int8"):
        assert summary([layer("a", tactic, (QUERY,))], PRODUCTS)["sparse_layers_chosen"] == 1


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("(Sparsity) Chose 3 layer(s) using sparse tactics: a, b, c", 3),
        ("TRT inference plan picked sparse implementation for layers: x, y", 2),
        ("TRT inference plan picked sparse implementation for layers: ", 0),
        ("TRT inference plan picked sparse implementation for layers:", 0),
    ],
)
@pytest.mark.parametrize("tactic", ["__myelin_CASK_STUB", "sm80_xmma_gemm_i8"])
def test_the_log_decides_where_no_tactic_is_called_sparse(line, count, tactic):
    dense = layer("a", tactic, (QUERY,), ((32, "int8"),))
    assert summary([dense], PRODUCTS, [line])["sparse_layers_chosen"] == count


def test_a_tactic_that_is_called_sparse_counts_where_the_log_says_less():
    sparse = layer("a", "sm80_xmma_sparse_gemm_i8", (QUERY,), ((32, "int8"),))
    assert summary([sparse], PRODUCTS, ["(Sparsity) Chose 0 layer(s)"])["sparse_layers_chosen"] == 1


def test_a_gemm_that_no_layer_names_is_unknown_and_not_counted_against_the_plan():
    seen = summary([layer("b", "t", ("/head",), ((8, "fp16"),))], PRODUCTS)
    assert seen["unplaced_gemms"] == [QUERY]
    assert seen["int8_gemm_share"] is None
    assert seen["gemm_precisions"] == seen["gemm_outputs"] == {"fp16": 1, "unknown": 1}


SHORTENED = {
    "Name": "{ForeignNode[/layer.0/.../head]}",
    "LayerType": "Myelin",
    "Inputs": [],
    "Outputs": [],
    "TacticName": "",
}
"""As TensorRT writes what it fuses when the name grows too long."""


def test_an_entry_that_is_shortened_and_lists_no_constants_refuses_no_engine():
    found = inspector.from_inspector(json.dumps({"Layers": [SHORTENED, "only a name"]}))
    seen = summary(found, PRODUCTS)
    assert (seen["int8_gemm_share"], seen["sparse_layers_chosen"], seen["gemm_outputs"]) == (None, None, {"unknown": 2})
    candidate = Candidate("tensorrt", "int8", "fp16", evidence=seen)
    logits = [np.array([[1.0, 2.0], [2.0, 1.0]])]
    judge(candidate, logits, logits, [np.ones((2, 4))], 0.1, False)
    assert candidate.agreed


def test_the_output_of_every_gemm_is_told():
    stored = layer("a", "sm80_xmma_gemm_i8", (QUERY,), ((32, "int8"),))
    requantising = Layer("b", "kgen", ("fp16",), ("int8",), "k", (QUERY,))
    head = Layer("c", "gemm", ("fp16",), ("fp32",), "t", ("/head",), ((8, "fp16"),))
    assert summary([requantising, stored, head], PRODUCTS)["gemm_outputs"] == {"fp16": 1, "fp32": 1}
    assert inspector.gemms([stored], PRODUCTS)[PRODUCTS[0]] == ("int8", "fp16")


def test_profiles_are_not_counted_twice():
    entry = {"LayerType": "gemm", "TacticName": "sparse", "Metadata": f"[ONNX Layer: {QUERY}]"}
    for names in (["a [profile 0]", "a [profile 1]"], ["a_myl0_2", "a_myl1_2"]):
        found = inspector.from_inspector(json.dumps({"Layers": [{**entry, "Name": name} for name in names]}))
        assert summary(found, PRODUCTS)["sparse_layers_chosen"] == 1
    chosen = "(Sparsity) Chose 3 layer(s) using sparse tactics: a, b, c"
    assert summary([], PRODUCTS, [chosen, chosen])["sparse_layers_chosen"] == 3


def test_without_layers_nothing_is_claimed():
    seen = summary([], PRODUCTS)
    names = ("int8_gemm_share", "fused_attention", "sparse_layers_chosen", "unplaced_gemms")
    assert [seen[name] for name in names] == [None] * 4


@pytest.mark.parametrize(
    "tensor",
    [
        {"Name": "x", "Dimensions": [8, 4], "Format/Datatype": "Row major linear INT8 format"},
        {"Name": "x", "Dimensions": [8, 4], "Format": "Row major linear", "Datatype": "Int8"},
    ],
    ids=["10", "11"],
)
def test_the_inspectors_json(tensor):
    entry = {
        "Name": f"{QUERY}_myl0_2",
        "LayerType": "gemm",
        "Inputs": [tensor],
        "Outputs": [],
        "Constants": [{**tensor, "Dimensions": [4, 8]}],
        "TacticName": "sm80_sparse_i8",
        "Metadata": f"[ONNX Layer: {QUERY}]\x1e[ONNX Layer: /layer.0/query/Add]",
    }
    (read,) = inspector.from_inspector(json.dumps({"Layers": [entry], "Bindings": ["input_ids"]}))
    assert read.onnx == (QUERY, "/layer.0/query/Add")
    assert (read.inputs, read.constants, read.is_sparse) == (("int8",), ((32, "int8"),), True)
    without = inspector.from_inspector(json.dumps({"Layers": [{**entry, "Constants": None}]}))
    assert summary(without, PRODUCTS[:1])["int8_gemm_share"] == 1
