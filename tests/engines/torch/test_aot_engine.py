"""Engines of PyTorch's compiler: built, run at any shape, and refused where they do not belong."""

import gc
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from optkit.core.cpu import cpu_features
from optkit.core.errors import InputError, MachineError
from optkit.core.gpu import Gpu
from optkit.engines import registry as engines
from optkit.engines.record import read_record
from optkit.engines.torch.aot_engine import RUNTIME
from optkit.engines.torch.compiling import table_sizes
from optkit.graph import onnx_file, reference
from optkit.graph.export import export
from optkit.serving import containers, native
from optkit.serving.config import parse
from optkit.tasks.classification import Classification
from tests.graph.families import FAMILIES, classifier
from tests.graph.models import LENGTH, bert, feed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """The graph of a classifier of one layer, which is compiled in half the time of two."""
    return export(bert(layers=1), tmp_path_factory.mktemp("graph"), LENGTH, Classification)


@pytest.fixture(scope="module")
def engine(graph, tmp_path_factory):
    """The folder of a float32 engine of it."""
    folder = tmp_path_factory.mktemp("engine")
    RUNTIME.build(graph, "fp32", folder)
    return folder


@pytest.fixture
def loaded(engine):
    """The engine on one thread."""
    return engines.load(engine, 1)


@pytest.mark.parametrize("shape", [(1, 2), (1, 3), (2, 7), (5, 16)])
def test_its_logits_are_those_of_the_graph_at_any_shape(loaded, graph, shape):
    batch = feed(*shape, 0)
    expected = reference.infer(reference.load(graph), batch)
    found = loaded.infer(batch)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_process_computes_in_as_many_threads_as_before(engine):
    before = torch.get_num_threads()
    engines.load(engine, before + 1).infer(feed(2, 5, 0))
    assert torch.get_num_threads() == before


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_ids": np.full((2, 5), 100_000)}, r"input_ids: found numbers from 100000 to 100000, .* 0 to \d+"),
        ({"input_ids": np.full((2, 5), -1)}, "input_ids: found numbers from -1 to -1"),
        ({"token_type_ids": np.full((2, 5), 7)}, "token_type_ids: found numbers from 7 to 7, .* 0 to 1"),
        ({"attention_mask": np.ones((2, 4))}, r"expected all of one shape \[batch, sequence\]"),
        (feed(2, LENGTH + 1, 0), f"found {LENGTH + 1} tokens, the engine takes {LENGTH} at most"),
        (feed(0, 5, 0), "without a 0"),
        ({"input_ids": np.ones(5), "attention_mask": np.ones(5), "token_type_ids": np.ones(5)}, "all of one shape"),
    ],
)
def test_inputs_that_would_end_the_process_are_refused(loaded, changes, message):
    with pytest.raises(InputError, match=message):
        loaded.infer({**feed(2, 5, 0), **changes})
    assert loaded.infer(feed(2, LENGTH, 0)).shape == (2, 3)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_familys_ids_are_looked_up_in_a_table_that_is_known(name, tmp_path):
    graph = export(classifier(name), tmp_path, 32, Classification)
    assert table_sizes(onnx_file.load(graph).graph)["input_ids"] == 60


def unpacked():
    """Folders of packages in the folder for temporary files."""
    return set(Path(tempfile.gettempdir()).glob("optkit-package-*")) | set(Path("/tmp").glob("aotinductor_*"))


def test_a_package_leaves_no_files_behind(engine, tmp_path):
    before = unpacked()
    held = engines.load(engine, 1)
    assert len(unpacked() - before) == 1
    del held
    gc.collect()
    assert unpacked() == before
    # a server's process ends without taking its objects apart, and the next one that loads a package clears up
    script = f"import os, optkit; engine = optkit.load_engine({str(engine)!r}); os._exit(0)"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", script], env=environment, check=True)
        assert len(list(tmp_path.iterdir())) == 1
    assert unpacked() == before


def damaged(content, how):
    """The bytes of a package, changed."""
    if how == "cut":
        return content[: len(content) // 2]
    if how == "bits":
        middle = len(content) // 2
        return content[:middle] + bytes(255 - byte for byte in content[middle : middle + 100]) + content[middle + 100 :]
    found = io.BytesIO()
    if how == "program":  # exported, not compiled
        torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),)), found)
    elif how == "archive":
        with zipfile.ZipFile(found, "w") as archive:
            archive.writestr("a", "b")
    return found.getvalue()


@pytest.mark.parametrize("how", ["cut", "bits", "program", "archive", "empty"])
def test_a_file_that_is_no_package_is_refused(engine, tmp_path, how):
    folder = shutil.copytree(engine, tmp_path / "engine")
    path = folder / "model.pt2"
    path.write_bytes(damaged(path.read_bytes(), how))
    with pytest.raises(InputError, match=r"model\.pt2: expected what AOTInductor compiled .* Build the engine again"):
        RUNTIME.load(folder)
    path.unlink()
    with pytest.raises(InputError, match="there is no such file"):
        RUNTIME.load(folder)


def test_a_package_of_other_inputs_is_refused(engine, tmp_path):
    folder = shutil.copytree(engine, tmp_path / "engine")
    record = json.loads((folder / "engine.json").read_text())
    (folder / "engine.json").write_text(json.dumps({**record, "inputs": ["input_ids", "attention_mask"]}))
    with pytest.raises(InputError, match="takes 3 tensors, expected 2"):
        RUNTIME.load(folder)
    del record["packed"]
    (folder / "engine.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"engine\.json: .*packed"):
        RUNTIME.load(folder)


def test_int8_is_for_a_gpu(exported, tmp_path):
    if RUNTIME.on_gpu:
        pytest.skip("this machine has a GPU")
    assert RUNTIME.precisions(graph_is_quantised=True) == ()
    with pytest.raises(InputError, match="PyTorch cannot build precision 'int8'"):
        RUNTIME.build(exported(is_quantised=True)[1], "int8", tmp_path)


@pytest.mark.parametrize(
    ("capability", "quantised", "plain"),
    [
        ((7, 0), (), ("fp32", "fp16")),
        ((7, 5), ("int8",), ("fp32", "fp16")),
        ((8, 0), ("int8",), ("fp32", "fp16", "bf16")),
        ((8, 9), ("int8", "fp8"), ("fp32", "fp16", "bf16")),
        ((9, 0), ("int8", "fp8"), ("fp32", "fp16", "bf16")),
    ],
)
def test_precisions_are_those_of_the_cards_tensor_cores(monkeypatch, capability, quantised, plain):
    card = Gpu("a card", capability, 1 << 36, 1 << 36, "580.1", (13, 0))
    monkeypatch.setattr("optkit.engines.torch.aot_engine.gpus", lambda: (card,))
    assert RUNTIME.precisions(graph_is_quantised=True) == quantised
    assert RUNTIME.precisions(graph_is_quantised=False) == plain
    assert RUNTIME.variants("int8") == (("fp16", "bf16") if "bf16" in plain else ("fp16",))
    assert RUNTIME.variants("fp8") == ("bf16",)


def test_bf16_is_for_cpus_that_multiply_it():
    has = bool({"avx512_bf16", "amx_bf16"} & set(cpu_features()))
    assert ("bf16" in RUNTIME.precisions(graph_is_quantised=False)) == (has or RUNTIME.on_gpu)


@pytest.mark.parametrize("named", [None, "", "nothing++", "ccache g++"])
def test_without_the_compiler_that_pytorch_calls_it_says_so(monkeypatch, tmp_path, named):
    """PyTorch takes CXX as one name, or else g++: another compiler does not help."""
    for name in ("clang++",) if named is None else ("clang++", "g++"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    if named is not None:
        monkeypatch.setenv("CXX", named)
    with pytest.raises(MachineError, match=f"this machine has no {'g++' if named is None else named!r}".replace("+", r"\+")):
        RUNTIME.require()
    monkeypatch.setenv("CXX", "clang++")
    RUNTIME.require()


def test_it_is_built_where_it_is_named():
    assert "torch" in engines.kinds() and "torch" not in engines.installed()
