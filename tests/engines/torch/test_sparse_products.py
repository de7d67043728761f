"""Products with 2:4 weights by cuSPARSELt's operators, which a packing of the same size stands for here."""

import io
import json

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from transformers import BertForSequenceClassification

from optkit import Quantize
from optkit.compression import quantizers
from optkit.engines.torch import sparse_trial
from optkit.engines.torch.compiling import exported as traced
from optkit.engines.torch.compiling import to_package
from optkit.engines.torch.fusions import fuse
from optkit.engines.torch.onnx_module import OnnxModule
from optkit.engines.torch.packing import pack
from optkit.engines.torch.sparse_products import Product, Way, compress, is_two_to_four, join_sparse_products
from optkit.graph import onnx_file, reference
from optkit.graph.export import export
from optkit.graph.tensorrt.half_precision import to_16bit
from optkit.tasks.classification import Classification
from tests.graph.models import LENGTH, as_tensors, bert, feed, sparse

from . import cusparselt
from .test_onnx_module import run

ONNX_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
WAYS = (Way(1, 0), Way(0, 0), Way(0, 3))


@pytest.fixture(scope="module", autouse=True)
def operators():
    with cusparselt.on_a_cpu():
        yield


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """Graphs of a 2:4 model by whether they are quantised; one of a single layer is compiled in half the time."""
    made = {}
    for name in (False, True, "one layer"):
        is_quantised = bool(name)
        model = sparse(bert(BertForSequenceClassification, layers=1 if name == "one layer" else 2))
        if is_quantised:
            quantizers.insert(model, Quantize())
            quantizers.calibrate(model, lambda model: model(**as_tensors(feed(8, LENGTH))))
        made[name] = export(model, tmp_path_factory.mktemp("graph"), LENGTH, Classification)
    return made


def module_of(graph, kind, choose, packed=True):
    model = onnx_file.load(graph)
    fuse(model.graph, ONNX_TYPES[kind])
    assert not packed or pack(model.graph)
    to_16bit(model, kind)
    found = join_sparse_products(model.graph, choose)
    module = OnnxModule(model.graph).eval()
    compress(module)
    return module, found


@pytest.mark.parametrize("kind", [torch.int8, torch.float16, torch.bfloat16])
def test_packing_gives_back_every_bit(kind):
    torch.manual_seed(0)
    weight = torch.randint(-127, 128, (48, 64)) if kind == torch.int8 else torch.randn(48, 64)
    places = torch.rand(48, 16, 4).argsort(-1).reshape(48, 64)
    weight = torch.where(places < 2, weight, 0).to(kind)
    weight[3:5] = 0  # whole rows, and groups that keep less than two
    packed = torch._cslt_compress(weight)
    # what cuSPARSELt's takes: half the values, and two bits for each of them
    assert packed.numel() * packed.element_size() == weight.numel() * (kind.itemsize / 2 + 1 / 8)
    assert torch.equal(cusparselt.restored(packed, 64), weight)
    # as a product shows on the card: with the identity it is the weight again
    identity = torch.eye(64, dtype=kind)
    told = {"out_dtype": torch.int32} if kind == torch.int8 else {}
    assert torch.equal(torch._cslt_sparse_mm(packed, identity, **told).to(kind), weight)


@pytest.mark.parametrize("is_quantised", [False, True])
def test_every_2_4_weight_of_the_encoder_is_given_to_cusparselt(graphs, is_quantised):
    module, found = module_of(graphs[is_quantised], "fp16", lambda product: Way(1, 0))
    # queries, keys and values are one product
    assert found == {"sparse_layers_eligible": 8, "sparse_layers_chosen": 8}
    operators = [step.operator for step in module.steps]
    assert operators.count("SparseInt8Linear" if is_quantised else "SparseLinear") == 8 and "Int8Linear" not in operators


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("is_quantised", "kind", "packed"), [(False, "fp16", True), (True, "fp16", False), (True, "bf16", True)]
)
def test_the_answer_is_that_of_the_dense_products(graphs, is_quantised, kind, packed, way):
    batch = feed(3, 11, 0)  # 33 tokens: filled up for cuSPARSELt
    batch["attention_mask"][0, 5:] = 0
    dense = run(module_of(graphs[is_quantised], kind, lambda product: None, packed)[0], batch)
    sparse_ = run(module_of(graphs[is_quantised], kind, lambda product: way, packed)[0], batch)
    spread = np.abs(dense - dense.mean()).mean()
    assert np.abs(sparse_ - dense).mean() < {"fp16": 0.02, "bf16": 0.1}[kind] * spread


def test_only_what_was_chosen_is_replaced(graphs):
    module, found = module_of(graphs[True], "fp16", lambda product: Way(1, 0) if product.depth == 128 else None)
    assert found == {"sparse_layers_eligible": 8, "sparse_layers_chosen": 2}
    operators = [step.operator for step in module.steps]
    assert (operators.count("SparseInt8Linear"), operators.count("Int8Linear")) == (2, 6)


def test_equal_products_are_tried_once(graphs):
    asked = []
    module_of(graphs[True], "fp16", asked.append)
    # those of each layer, though GELU's are rounded to other steps in each
    assert [(product.columns, product.depth, product.gelu) for product in asked] == [
        (192, 64, 0),
        (64, 64, 0),
        (128, 64, 1),
        (64, 128, 0),
    ]


@pytest.mark.slow
def test_weights_that_are_not_2_4_are_not_eligible(exported):
    _, found = module_of(exported(is_quantised=True)[1], "fp16", lambda product: Way(1, 0))
    assert found == {"sparse_layers_eligible": 0, "sparse_layers_chosen": 0}


def test_what_counts_as_2_4():
    weight = np.array([[1, 0, 2, 0, 0, 0, 0, 3]], np.int8)
    assert is_two_to_four(weight) and not is_two_to_four(np.zeros_like(weight))
    weight[0, 1] = 1
    assert not is_two_to_four(weight)


@pytest.mark.parametrize("shape", [(24, 64), (64, 40)])
def test_shapes_that_cusparselt_does_not_take_stay_dense(shape):
    weight = np.tile(np.array([1, 0, 0, 1], np.int8), (shape[0], shape[1] // 4))
    inputs = [numpy_helper.from_array(weight, "weight")] + [
        numpy_helper.from_array(np.ones(shape[0], np.float32), name) for name in ("scale", "bias")
    ]
    node = helper.make_node("Int8Linear", ["x", "weight", "scale", "bias"], ["y"], domain="optkit", to=1)
    value = helper.make_tensor_value_info
    graph = helper.make_graph([node], "g", [value("x", TensorProto.INT8, [1])], [value("y", TensorProto.FLOAT, [1])], inputs)
    assert join_sparse_products(graph, lambda product: Way(1, 0))["sparse_layers_eligible"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
def test_sizes_stay_symbols(graphs, packed):
    module, _ = module_of(graphs[True], "fp16", lambda product: Way(1, 0), packed)
    program = traced(module, (4, 16), 4, 32, graphs[True])
    filled = [node for node in program.graph.nodes if "pad" in str(node.target)]
    # the tokens of a packed batch are a multiple of what cuSPARSELt wants as they come
    assert bool(filled) == (not packed)
    running = program.module()
    running.input_names = module.input_names
    batch = feed(3, 11, 0)
    np.testing.assert_allclose(run(running, batch), run(module, batch), atol=2e-2)


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
def test_a_compiled_package_calls_the_operators(graphs, tmp_path, packed):
    module, _ = module_of(graphs["one layer"], "bf16", lambda product: Way(1, 0), packed)
    program, batch = traced(module, (4, 16), 4, 32, graphs["one layer"]), feed(3, 11, 0)
    to_package(program, tmp_path / "model.pt2", "cpu")
    package = torch._inductor.aoti_load_package(str(tmp_path / "model.pt2"))
    package.input_names = module.input_names
    expected = reference.infer(reference.load(graphs["one layer"]), batch)
    assert np.abs(run(package, batch) - expected).mean() < 0.1 * np.abs(expected - expected.mean()).mean()


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["MatMul", "Int8Linear"])
def test_where_there_is_no_cusparselt_the_trial_keeps_the_dense_product(operator, caplog):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    int8 = operator == "Int8Linear"
    kind = TensorProto.INT8 if int8 else TensorProto.FLOAT16
    with caplog.at_level("INFO"):
        assert sparse_trial.fastest(Product(operator, kind, TensorProto.FLOAT16, int(int8), 64, 96), 48) is None
    assert "'way': None, 'us': " in caplog.text and "exit status 1" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["MatMul", "Int8Linear"])
def test_a_trial_times_every_way(operator, monkeypatch, capsys):
    """With a result that is transposed by itself or not; the searched one is transposed for INT8 alone."""
    int8 = operator == "Int8Linear"
    kind = TensorProto.INT8 if int8 else TensorProto.FLOAT16
    product = Product(operator, kind, TensorProto.FLOAT16, int(int8), 64, 96)
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({**vars(product), "rows": 48})))
    sparse_trial.main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["way"] for line in lines] == [None, [1, 0], [0, 0], [int(int8), 2]]
    assert all(line["us"] > 0 for line in lines)


@pytest.mark.slow
def test_a_way_with_another_result_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(cusparselt, "restored", lambda packed, depth: torch.ones(len(packed), depth))
    product = Product("MatMul", TensorProto.FLOAT16, TensorProto.FLOAT16, 0, 64, 96)
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({**vars(product), "rows": 48})))
    sparse_trial.main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ["refused" in line for line in lines] == [False, True, True, True] and "from the dense product" in lines[1][
        "refused"
    ]
    assert sparse_trial.best(lines) is None


def test_the_fastest_way_is_taken_the_dense_one_included():
    dense, slow, fast = {"way": None, "us": 3.0}, {"way": [1, 0], "us": 4.0}, {"way": [0, 2], "us": 2.0}
    assert sparse_trial.best([dense, slow, fast]) == Way(0, 2)
    assert sparse_trial.best([dense, slow, {**fast, "us": 3.5}]) is None
    # a process that the card ended before its last way, or before its first
    assert sparse_trial.best([dense, {"way": [1, 0], "us": 2.5}]) == Way(1, 0)
    assert sparse_trial.best([]) is None
    assert sparse_trial.best([dense, {"way": [1, 0], "refused": "0.3 from the dense product"}]) is None
