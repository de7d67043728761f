"""Engines of PyTorch's compiler: built, run at any shape, and refused where they do not belong."""

import json
import shutil

import numpy as np
import pytest

from optkit.core.cpu import cpu_features
from optkit.core.errors import InputError, MachineError
from optkit.core.gpu import Gpu
from optkit.engines import registry as engines
from optkit.engines.record import read_record
from optkit.engines.torch.aot_engine import RUNTIME
from optkit.graph import reference
from optkit.serving import containers, native
from optkit.serving.config import parse
from tests.graph.models import feed

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("compiler")]


@pytest.fixture(scope="module")
def engine(exported, tmp_path_factory):
    """The folder of a float32 engine of the tiny classifier."""
    folder = tmp_path_factory.mktemp("engine")
    RUNTIME.build(exported()[1], "fp32", folder)
    return folder


@pytest.fixture
def loaded(engine):
    """The engine on one thread."""
    return engines.load(engine, 1)


@pytest.mark.parametrize("shape", [(1, 2), (1, 3), (2, 7), (5, 16)])
def test_its_logits_are_those_of_the_graph_at_any_shape(loaded, exported, shape):
    batch = feed(*shape, 0)
    expected = reference.infer(reference.load(exported()[1]), batch)
    found = loaded.infer(batch)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_it_says_of_itself(loaded, engine):
    evidence = loaded.evidence()
    assert evidence["int8_gemm_share"] == 0 and evidence["fused"]["attention"] > 0 and not evidence["packed"]
    record = json.loads((engine / "engine.json").read_text())
    assert (record["device"], record["precision"], record["variant"]) == ("cpu", "fp32", "f32")
    assert RUNTIME.stored_evidence(engine) == evidence


def test_its_configuration_for_tritons_platform_numbers_its_tensors(engine):
    """The platform reads no other names of positional inputs, and of an output that is one tensor."""
    found = parse(native.config(engine))
    assert (found.backend, found.platform, found.max_batch_size) == ("pytorch", "torch_aoti", 0)
    assert [(one.name, list(one.dims)) for one in found.input] == [(f"INPUT__{place}", [-1, -1]) for place in range(3)]
    assert [(one.name, list(one.dims)) for one in found.output] == [("OUTPUT__0", [-1, 3])]


def test_its_container_has_the_very_version_that_compiled_it(engine):
    record = read_record(engine)
    version = record["runtime_version"].partition("+")[0]
    assert containers.container(record, f"26.05={version}") == "26.05"
    with pytest.raises(MachineError, match="was built by"):
        containers.container(record, "26.05=99.0.0")


def test_another_version_of_pytorch_is_refused(engine, tmp_path):
    folder = shutil.copytree(engine, tmp_path / "engine")
    record = json.loads((folder / "engine.json").read_text())
    (folder / "engine.json").write_text(json.dumps({**record, "runtime_version": "2.0.0"}))
    with pytest.raises(MachineError, match=r"compiled by PyTorch 2\.0\.0"):
        RUNTIME.load(folder)


def test_int8_is_for_a_gpu(exported, tmp_path):
    if RUNTIME.on_gpu:
        pytest.skip("this machine has a GPU")
    assert RUNTIME.precisions(graph_is_quantised=True) == ()
    with pytest.raises(InputError, match="PyTorch cannot build precision 'int8'"):
        RUNTIME.build(exported(is_quantised=True)[1], "int8", tmp_path)


@pytest.mark.parametrize(
    ("capability", "expected"), [((8, 0), ("int8",)), ((8, 9), ("int8", "fp8")), ((9, 0), ("int8", "fp8"))]
)
def test_fp8_is_for_cards_from_ada_on(monkeypatch, capability, expected):
    card = Gpu("a card", capability, 1 << 36, 1 << 36, "580.1", (13, 0))
    monkeypatch.setattr("optkit.engines.torch.aot_engine.gpus", lambda: (card,))
    assert RUNTIME.precisions(graph_is_quantised=True) == expected
    assert RUNTIME.variants("fp8") == ("bf16",)


def test_bf16_is_for_cpus_that_multiply_it():
    has = bool({"avx512_bf16", "amx_bf16"} & set(cpu_features()))
    assert ("bf16" in RUNTIME.precisions(graph_is_quantised=False)) == (has or RUNTIME.on_gpu)


def test_without_a_compiler_it_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(MachineError, match=r"no C\+\+ compiler"):
        RUNTIME.require()


def test_it_is_built_where_it_is_named():
    assert "torch" in engines.kinds() and "torch" not in engines.installed()
