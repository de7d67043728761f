"""What only a GPU can show: plans run, answer as their graph, and are served. `make test-gpu` runs these alone."""

import json

import numpy as np
import pytest
from transformers import BertConfig, BertForSequenceClassification

from optkit import Quantize
from optkit.compression import quantizers
from optkit.core.errors import InputError, MachineError
from optkit.engines import registry as engines
from optkit.engines.tensorrt.compatibility import EVIDENCE, PLAN
from optkit.engines.tensorrt.engine import RUNTIME as TENSORRT
from optkit.engines.tensorrt.profiles import Options
from optkit.engines.tensorrt.runner import MOST_SHAPES
from optkit.graph import reference
from optkit.graph.export import export
from optkit.graph.tensorrt import ranges
from optkit.graph.tensorrt.variants import FLOAT, INT8
from optkit.tasks.classification import Classification
from tests.graph.conftest import exported  # noqa: F401
from tests.graph.models import LENGTH, VOCABULARY, as_tensors, feed, sparse

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not TENSORRT.runs_here(), reason="no NVIDIA GPU with the tensorrt package here"),
]
NOISE = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 0.1, "int8": 0.15}
"""Allowed share of noise in the logits."""
ALL = [(name, name) for name in FLOAT] + [("int8", name) for name in INT8]


@pytest.fixture(scope="session")
def built(exported, tmp_path_factory):  # noqa: F811
    """`(precision, variant) -> (graph, folder)`."""
    made, prepared = {}, tmp_path_factory.mktemp("prepared")

    def get(precision, variant):
        if (precision, variant) not in made:
            weights = "per_tensor" if variant.startswith("int8-out") else "per_channel"
            graph = exported(is_quantised=precision == "int8", weights=weights)[1]
            if precision == "int8":
                at = prepared / weights / graph.name
                at.parent.mkdir(exist_ok=True)
                graph = at if at.exists() else ranges.prepare(graph, [feed(8, LENGTH, seed) for seed in (1, 2)], at.parent)
            folder = tmp_path_factory.mktemp("engine")
            TENSORRT.build(graph, precision, folder, variant, Options(batch="1,8,16"))
            made[precision, variant] = graph, folder
        return made[precision, variant]

    return get


@pytest.mark.parametrize(("precision", "variant"), ALL)
def test_a_plan_answers_as_its_graph_also_from_its_cuda_graph(built, precision, variant):
    if precision not in TENSORRT.precisions(precision == "int8"):
        pytest.skip(f"this card has no {precision}")
    graph, folder = built(precision, variant)
    handle, engine = reference.load(graph), engines.load(folder)
    for shape in ((8, LENGTH), (1, 5), (16, 9)):
        for seed in range(4):  # the third run of a shape on replays a CUDA graph, with other tokens in it
            asked = feed(*shape, seed)
            found, expected = engine.infer(asked), reference.infer(handle, asked)
            assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < NOISE[precision], (shape, seed)


@pytest.mark.parametrize("variant", [name for name in INT8 if name != "bf16"])
def test_the_inspector_finds_int8(built, variant):
    content = json.loads((built("int8", variant)[1] / EVIDENCE).read_text())
    assert content["source"] == "engine inspector"
    assert content["int8_gemm_share"] > 0.9, content
    assert content["sparse_layers_chosen"] == 0
    if variant.startswith("int8-out"):
        assert content["gemm_outputs"]["int8"] >= 10, content["gemms"]


@pytest.fixture(scope="session")
def sparse_graph(tmp_path_factory):
    """The quantised graph of one layer of BERT-base's width whose weights are 2:4 sparse, with its ranges."""
    import torch

    sizes = {"num_hidden_layers": 1, "max_position_embeddings": LENGTH, "vocab_size": VOCABULARY}
    torch.manual_seed(0)
    made = sparse(BertForSequenceClassification(BertConfig(**sizes)).eval())
    quantizers.insert(made, Quantize(weights="per_tensor"))
    quantizers.calibrate(made, lambda model: model(**as_tensors(feed(8, LENGTH))))
    graph = export(made, tmp_path_factory.mktemp("sparse"), LENGTH, Classification)
    return ranges.prepare(graph, [feed(8, LENGTH)], tmp_path_factory.mktemp("prepared"))


@pytest.mark.parametrize("variant", ["int8-out", "int8-out-all"])
def test_a_sparse_plan_answers_as_its_graph_and_tells_how_many_kernels_are_sparse(sparse_graph, tmp_path, variant):
    TENSORRT.build(sparse_graph, "int8", tmp_path, variant, Options(batch="1,8,16"))
    content = json.loads((tmp_path / EVIDENCE).read_text())
    assert content["sparse_weights"] == content["graph"]["encoder_gemms"] == 6
    assert content["sparse_layers_chosen"] is not None, (tmp_path / "build.log").read_text()
    asked, handle = feed(8, LENGTH, 3), reference.load(sparse_graph)
    found, expected = engines.load(tmp_path).infer(asked), reference.infer(handle, asked)
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < NOISE["int8"]


def test_many_shapes_share_one_scratch_block(built):
    """More shapes than contexts are kept, each twice in turn: the first ones are set up anew."""
    import torch

    graph, folder = built("fp16", "fp16")
    handle, engine = reference.load(graph), engines.load(folder)
    before = torch.cuda.memory_allocated()
    for _ in range(2):
        for batch in range(1, MOST_SHAPES + 4):
            asked = feed(batch, LENGTH, batch)
            expected = reference.infer(handle, asked)
            assert np.linalg.norm(engine.infer(asked) - expected) / np.linalg.norm(expected) < NOISE["fp16"]
    assert torch.cuda.memory_allocated() - before < 1 << 20  # tensors of eight shapes, and no scratch memory


def test_a_shape_beyond_the_profile_is_refused(built):
    engine = engines.load(built("fp16", "fp16")[1])
    with pytest.raises(InputError, match=r"takes shapes .*found \[17, 4\]"):
        engine.infer(feed(17, 4))


def test_a_file_that_is_no_plan_is_refused(built, tmp_path):
    import shutil

    shutil.copytree(built("fp16", "fp16")[1], tmp_path / "broken")
    (tmp_path / "broken" / PLAN).write_bytes(b"not a plan")
    with pytest.raises(MachineError, match="cannot be loaded by TensorRT"):
        engines.load(tmp_path / "broken")


def test_a_workspace_beyond_the_cards_memory(built, tmp_path):
    with pytest.raises(MachineError, match="Give a smaller --workspace-mb"):
        TENSORRT.build(built("fp16", "fp16")[0], "fp16", tmp_path, options=Options(workspace_mb=1 << 30))


def test_refit_and_version_compatible_plans_are_built(built, tmp_path):
    TENSORRT.build(built("fp16", "fp16")[0], "fp16", tmp_path, options=Options(refit=True))
    assert engines.load(tmp_path).infer(feed(2, 4)).shape == (2, 3)
