"""What OpenVINO fuses: fewer nodes, and the same answers."""

import numpy as np
import pytest
import torch

from optkit.compression import quantizers
from optkit.compression.quantize import Quantize
from optkit.engines import registry as engines
from optkit.graph.export import export
from optkit.tasks.classification import Classification
from tests.graph.families import classifier, texts
from tests.graph.models import LENGTH, feed

openvino = pytest.importorskip("openvino", reason="OpenVINO's engines are needed: pip install -e '.[cpu]'")
pytestmark = pytest.mark.skipif("int8" not in engines.runtime("openvino").precisions(True), reason="no exact INT8 here")


def as_written(graph, asked):
    """The answers of OpenVINO to a graph that was not changed, in float32 where it is not INT8."""
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    request = openvino.Core().compile_model(str(graph), "CPU", settings).create_infer_request()
    request.infer({name: asked[name] for name in asked if name in {port.any_name for port in request.model_inputs}})
    return request.get_output_tensor().data.copy()


@pytest.mark.parametrize("variant", engines.runtime("openvino").variants("int8"))
def test_no_quantizer_is_a_node_of_its_own(built, variant):
    counts = engines.load(built("openvino", "int8", variant), threads=1).evidence()["precision_by_type"]
    assert not [kind for kind in counts if kind.startswith("FakeQuantize")]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_keys_are_transposed_within_the_attention(built, precision):
    model = engines.load(built("openvino", precision, "f32"), threads=1).handle.model
    products = [node for node in model.get_ordered_ops() if node.get_type_name() == "MatMul"]
    attention = [node for node in products if node.input_value(1).get_node().get_type_name() == "Transpose"]
    assert [node.get_attributes()["transpose_b"] for node in attention] == [True, False] * 2, "keys, values, by layer"


@pytest.mark.parametrize("shape", [(1, 2), (3, 9), (4, LENGTH)])
def test_the_answers_are_those_of_the_graph_as_it_is_written(built, exported, shape):
    asked, engine = feed(*shape, 0), engines.load(built("openvino", "int8", "f32"), threads=1)
    assert np.array_equal(engine.infer(asked), as_written(exported("classification", True)[1], asked))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["modernbert", "deberta-v3", "mpnet", "distilbert", "nomic"])
def test_in_other_families(name, tmp_path):
    model = classifier(name)
    with torch.no_grad():
        quantizers.insert(model, Quantize())
        quantizers.calibrate(model, lambda calibrated: calibrated(**texts(model, 4, 12)))
    graph = export(model, tmp_path / "graph", 16, Classification)
    (tmp_path / "engine").mkdir()
    engines.runtime("openvino").build(graph, "int8", tmp_path / "engine", "f32")
    asked = {"token_type_ids": np.zeros((3, 9), np.int64)} | {
        key: value.numpy() for key, value in texts(model, 3, 9).items()
    }
    found = engines.load(tmp_path / "engine", threads=1).infer(asked)
    assert np.allclose(found, as_written(graph, asked), atol=1e-5)
