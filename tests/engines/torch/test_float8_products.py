"""FP8 products made of INT8 ones: exact products of what E4M3 holds, and close to the graph."""

import ml_dtypes
import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from optkit.core.errors import InputError
from optkit.engines.torch.float8_products import to_float8
from optkit.engines.torch.fusions import fuse
from optkit.engines.torch.onnx_module import OnnxModule
from optkit.engines.torch.packing import pack
from optkit.graph import onnx_file, reference
from optkit.graph.tensorrt.half_precision import TYPES, to_16bit
from tests.graph.models import feed

from .test_onnx_module import run

STEP = 0.05


def product(shape=(32, 48), reader="Int8Linear"):
    """A graph of one product behind its quantiser, its weight and its constants."""
    random = np.random.default_rng(0)
    constants = {
        "weight": random.integers(-127, 128, shape).astype(np.int8),
        "scale": (random.uniform(0.5, 2, shape[0]) * 1e-3 * STEP).astype(np.float32),
        "bias": random.standard_normal(shape[0]).astype(np.float32),
    }
    nodes = [
        helper.make_node("Quantize", ["x"], ["q"], "quantiser", domain="optkit", step=STEP),
        helper.make_node(reader, ["q", *constants], ["y"], "product", domain="optkit", to=TensorProto.FLOAT16),
    ]
    value = helper.make_tensor_value_info
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    inputs, outputs = (
        [value("x", TensorProto.FLOAT, ["rows", shape[1]])],
        [value("y", TensorProto.FLOAT16, ["rows", shape[0]])],
    )
    return helper.make_graph(nodes, "g", inputs, outputs, tensors), constants


def test_a_product_is_that_of_what_e4m3_holds():
    graph, constants = product()
    weight = constants["weight"] * (constants["scale"] / np.float32(STEP))[:, None]
    to_float8(graph, np.float16)
    value = np.random.default_rng(1).standard_normal((5, 48), np.float32) * 4
    found = OnnxModule(graph)(torch.from_numpy(value)).float().numpy()
    # inputs as far as the INT8 grid reaches, weights as far as their largest
    left, right = np.float32(STEP * 127 / 448), np.abs(weight).max() / 448
    rounded = np.clip(value / left, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float64)
    weights = (weight / right).astype(ml_dtypes.float8_e4m3fn).astype(np.float64)
    assert np.abs(weights).max() == 448
    np.testing.assert_allclose(found, rounded @ weights.T * left * right + constants["bias"], atol=2e-2)


def test_a_weight_of_zeros_gives_its_bias():
    graph, constants = product()
    next(one for one in graph.initializer if one.name == "weight").CopyFrom(
        numpy_helper.from_array(np.zeros((32, 48), np.int8), "weight")
    )
    to_float8(graph, np.float16)
    found = OnnxModule(graph)(torch.ones(3, 48)).float().numpy()
    np.testing.assert_allclose(found, np.tile(constants["bias"], (3, 1)), atol=1e-3)


@pytest.mark.parametrize("shape", [(24, 48), (32, 40)])
def test_sizes_that_it_does_not_take_are_refused(shape):
    with pytest.raises(InputError, match=r"product: a weight .*multiples of 16"):
        to_float8(product(shape)[0], np.float16)


def test_a_2_4_weight_is_refused_by_name():
    graph, constants = product()
    constants["weight"].reshape(-1, 4)[:, 1:3] = 0
    graph.initializer[0].CopyFrom(numpy_helper.from_array(constants["weight"], "weight"))
    with pytest.raises(InputError, match="product: FP8 and 2:4 are not combined"):
        to_float8(graph, np.float16)


def test_a_quantised_tensor_that_something_else_reads_is_refused():
    with pytest.raises(InputError, match="product: DequantizeLinear reads a quantised tensor"):
        to_float8(product(reader="DequantizeLinear")[0], np.float16)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_a_graph_in_fp8_is_close_to_it(exported, kind):
    _, graph = exported(is_quantised=True)
    model, batch = onnx_file.load(graph), feed(4, 24, 0)
    fuse(model.graph, TYPES[kind][0])
    to_float8(model.graph, TYPES[kind][1])
    assert pack(model.graph)
    to_16bit(model, kind)
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("Float8Linear") == 8 and "Int8Linear" not in operators and "Quantize" not in operators
    expected = reference.infer(reference.load(graph), batch)
    found = run(OnnxModule(model.graph), batch)
    assert np.abs(found - expected).mean() < 0.2 * np.abs(expected - expected.mean()).mean()
