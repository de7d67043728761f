"""What only a GPU can show: plans run, answer as their graph, and are served. `make test-gpu` runs these alone."""

import json

import numpy as np
import pytest

from optkit.core.errors import InputError, MachineError
from optkit.engines import registry as engines
from optkit.engines.tensorrt.compatibility import EVIDENCE, PLAN
from optkit.engines.tensorrt.engine import RUNTIME as TENSORRT
from optkit.engines.tensorrt.profiles import Options
from optkit.graph import reference
from optkit.graph.tensorrt import ranges
from tests.graph.conftest import exported  # noqa: F401
from tests.graph.models import LENGTH, feed

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not TENSORRT.runs_here(), reason="no NVIDIA GPU with the tensorrt package here"),
]
NOISE = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 0.1, "int8": 0.15}
"""Allowed share of noise in the logits."""
ALL = [(name, name) for name in ("fp32", "fp16", "bf16")]
ALL += [("int8", name) for name in ("fp16", "fp16-attention", "fp16-outputs", "bf16")]


@pytest.fixture(scope="session")
def built(exported, tmp_path_factory):  # noqa: F811
    """`(precision, variant) -> (graph, folder)`."""
    made, prepared = {}, tmp_path_factory.mktemp("prepared")

    def get(precision, variant):
        if (precision, variant) not in made:
            graph = exported(is_quantised=precision == "int8")[1]
            if precision == "int8":
                at = prepared / graph.name
                graph = at if at.exists() else ranges.prepare(graph, [feed(8, LENGTH, seed) for seed in (1, 2)], prepared)
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


@pytest.mark.parametrize("variant", ["fp16", "fp16-attention", "fp16-outputs"])
def test_the_inspector_finds_int8(built, variant):
    content = json.loads((built("int8", variant)[1] / EVIDENCE).read_text())
    assert content["source"] == "engine inspector"
    assert content["int8_gemm_share"] > 0.9, content
    assert content["sparse_layers_chosen"] == 0


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
