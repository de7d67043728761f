"""Engines of PyTorch's compiler on a card: they answer as their graph, with padding, without it, and from recorded runs."""

import numpy as np
import pytest
import torch
from onnx import TensorProto
from transformers import BertConfig, BertForSequenceClassification

from optkit import Quantize
from optkit.compression import quantizers
from optkit.core.gpu import gpus
from optkit.engines.torch import sparse_trial
from optkit.engines.torch.aot_engine import RUNTIME
from optkit.engines.torch.sparse_products import Product, Way
from optkit.graph import reference
from optkit.graph.export import export
from optkit.tasks.classification import Classification
from tests.graph.conftest import exported  # noqa: F401
from tests.graph.models import LENGTH, VOCABULARY, as_tensors, feed, sparse

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpus(), reason="no NVIDIA GPU here")]
NOISE = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 0.1, "int8": 0.15, "fp8": 0.25}
"""Allowed share of noise in the logits."""
ALL = [("fp32", "f32"), ("fp16", "fp16"), ("bf16", "bf16"), ("int8", "fp16"), ("int8", "bf16"), ("fp8", "bf16")]


@pytest.mark.parametrize(("precision", "variant"), ALL)
def test_an_engine_answers_as_its_graph(exported, tmp_path, precision, variant):  # noqa: F811
    if precision not in (*RUNTIME.precisions(False), *RUNTIME.precisions(True)):
        pytest.skip(f"this card has no {precision}")
    graph = exported(is_quantised=precision in ("int8", "fp8"))[1]
    RUNTIME.build(graph, precision, tmp_path, variant)
    handle, engine = reference.load(graph), RUNTIME.load(tmp_path)
    assert RUNTIME.evidence(engine)["packed"] == (precision != "fp32")
    for shape in ((1, 2), (3, 9), (8, 16)):
        batch = feed(*shape, 0)
        batch["attention_mask"][0, max(1, shape[1] // 2) :] = 0
        expected = reference.infer(handle, batch)
        signal = np.abs(expected - expected.mean()).mean()
        for _ in range(4):  # compiled, recorded, and replayed
            found = RUNTIME.infer(engine, batch)
            assert np.abs(found - expected).mean() < NOISE[precision] * signal


@pytest.fixture(scope="module")
def sparse_graphs(tmp_path_factory):
    """Graphs of one layer of BERT-base's width with 2:4 weights, by whether they are quantised."""
    made = {}
    for is_quantised in (False, True):
        torch.manual_seed(0)
        sizes = {"num_hidden_layers": 1, "max_position_embeddings": LENGTH, "vocab_size": VOCABULARY}
        model = sparse(BertForSequenceClassification(BertConfig(**sizes)).eval())
        if is_quantised:
            quantizers.insert(model, Quantize())
            quantizers.calibrate(model, lambda model: model(**as_tensors(feed(8, LENGTH))))
        made[is_quantised] = export(model, tmp_path_factory.mktemp("sparse"), LENGTH, Classification)
    return made


@pytest.mark.parametrize("way", [Way(1, 0), Way(0, 0)])
@pytest.mark.parametrize(("precision", "variant"), [("fp16", "fp16"), ("bf16", "bf16"), ("int8", "fp16"), ("int8", "bf16")])
def test_an_engine_whose_2_4_products_are_cusparselts(sparse_graphs, monkeypatch, tmp_path, precision, variant, way):
    """Whatever is faster."""
    monkeypatch.setattr(sparse_trial, "fastest", lambda product, rows: way)
    graph = sparse_graphs[precision == "int8"]
    RUNTIME.build(graph, precision, tmp_path, variant)
    handle, engine = reference.load(graph), RUNTIME.load(tmp_path)
    evidence = RUNTIME.evidence(engine)
    assert evidence["sparse_layers_chosen"] == evidence["sparse_layers_eligible"] == 4
    for shape in ((1, 2), (3, 9), (8, LENGTH)):
        batch = feed(*shape, 0)
        expected = reference.infer(handle, batch)
        for _ in range(4):
            found = RUNTIME.infer(engine, batch)
            assert np.abs(found - expected).mean() < NOISE[precision] * np.abs(expected - expected.mean()).mean()


@pytest.mark.parametrize("kind", [torch.int8, torch.float16, torch.bfloat16])
def test_what_cusparselt_packs_is_the_weight_bit_for_bit(kind):
    torch.manual_seed(0)
    weight = torch.randint(-127, 128, (96, 64)) if kind == torch.int8 else torch.randn(96, 64)
    places = torch.rand(96, 16, 4).argsort(-1).reshape(96, 64)
    weight = torch.where(places < 2, weight, 0).to(kind).cuda()
    told = {"out_dtype": torch.int32} if kind == torch.int8 else {}
    identity = torch.eye(64, dtype=kind, device="cuda")
    packed = torch._cslt_compress(weight).reshape(96, -1)
    assert torch.equal(torch._cslt_sparse_mm(packed, identity, **told).to(kind), weight)


@pytest.mark.parametrize("operator", ["MatMul", "Int8Linear"])
def test_the_trial_ends_with_a_way_or_none_and_leaves_the_card_alone(operator, caplog):
    int8 = operator == "Int8Linear"
    kind = TensorProto.INT8 if int8 else TensorProto.FLOAT16
    with caplog.at_level("INFO"):
        found = sparse_trial.fastest(Product(operator, kind, TensorProto.FLOAT16, int(int8), 3072, 768), 12288)
    assert found is None or isinstance(found, Way)
    assert caplog.text.count("'us': ") >= 2, caplog.text
    assert torch.ones(3, device="cuda").sum() == 3
