"""Every engine of this machine answers as the graph does, and says truly what it runs."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest

from optkit.core.cpu import cpu_features, int8_saturates
from optkit.core.errors import InputError, MachineError
from optkit.engines import registry as engines
from optkit.engines.select import plan
from optkit.graph import reference
from tests.engines.conftest import CPU_KINDS
from tests.graph.models import LENGTH, feed

pytestmark = pytest.mark.slow

SHAPES = [(1, 2), (3, 7), (8, 32), (1, 32)]
ALL = [
    (kind, precision, variant)
    for kind in CPU_KINDS
    for quantised in (False, True)
    for precision in engines.runtime(kind).precisions(quantised)
    for variant in engines.runtime(kind).variants(precision)
]
INT8_KINDS = [kind for kind in CPU_KINDS if engines.runtime(kind).precisions(True)]
"""On a CPU without VNNI ONNX Runtime alone."""
NOISE = {"fp32": 1e-4, "bf16": 0.05, "int8": 0.05}
"""Allowed share of noise in the logits: bf16 has 8 significant bits, and INT8 may round an activation the other way."""


@pytest.mark.parametrize(("kind", "precision", "variant"), ALL)
@pytest.mark.parametrize("head", ["classification", "question_answering"])
def test_an_engine_answers_as_its_graph(built, exported, kind, precision, variant, head):
    engine = engines.load(built(kind, precision, variant, head), threads=1)
    handle = reference.load(exported(head, precision == "int8")[1])
    found, expected = [], []
    for seed, shape in enumerate(SHAPES):
        asked = feed(*shape, seed)
        found.append(engine.infer(asked))
        expected.append(reference.infer(handle, asked))
        assert found[-1].shape == expected[-1].shape
        assert found[-1].dtype == np.float32
    ours, theirs = (np.concatenate([array.ravel() for array in side]) for side in (found, expected))
    assert np.linalg.norm(ours - theirs) / np.linalg.norm(theirs) < NOISE[precision]


@pytest.mark.parametrize("rows", [1, 16])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", CPU_KINDS)
def test_a_request_that_fails_is_an_error_and_leaves_nothing_behind(built, kind, threads, rows):
    """By its synchronous call OpenVINO answers as it did before, where it has one thread, instead of failing."""
    engine = engines.load(built(kind, "fp32"), threads=threads)
    expected = engine.infer(feed(rows, LENGTH))
    for _ in range(2):
        with pytest.raises(Exception, match=r"embeddings"):
            engine.runtime.infer(engine.handle, feed(rows, LENGTH + 8))  # the runtime's own check
        assert np.array_equal(engine.infer(feed(rows, LENGTH)), expected)


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_more_tokens_than_it_takes_are_refused(built, kind):
    with pytest.raises(InputError, match=rf"feed: found {LENGTH + 1} tokens, the engine takes {LENGTH} at most"):
        engines.load(built(kind, "fp32"), threads=1).infer(feed(2, LENGTH + 1))


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_an_input_that_is_missing_is_named(built, kind):
    engine, whole = engines.load(built(kind, "fp32"), threads=1), feed(2, LENGTH)
    lacking = {name: array for name, array in whole.items() if name != "attention_mask"}
    with pytest.raises(InputError, match=r"feed: found input_ids.*, lacks attention_mask; expected int64 arrays"):
        engine.infer(lacking)
    assert len(engine.infer(whole)) == 2


INTERRUPTED = """
import signal, sys
from optkit.engines import registry
first = registry.load(sys.argv[1])
second = registry.load(sys.argv[1])
del first
del second
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_ctrl_c_is_an_interruption_after_engines_came_and_went(built, kind):
    command = [sys.executable, "-c", INTERRUPTED, str(built(kind, "fp32"))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout) == (0, "interrupted\n"), ended.stderr


MEMORY = """
import sys
import numpy as np
import psutil
from optkit.engines import registry
engine, process, used = registry.load(sys.argv[1], threads=1), psutil.Process(), []
for first, last in ((1, 2), (2, 12), (12, 22), (22, 32)):
    for shape in [(rows, tokens) for rows in range(1, 31) for tokens in range(first, last)]:
        engine.infer({name: np.ones(shape, np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")})
    used.append(process.memory_full_info().uss)
print(*np.diff(used))
"""


@pytest.mark.parametrize("kind", INT8_KINDS)
def test_memory_does_not_grow_with_every_new_shape(built, kind):
    """OpenVINO compiles kernels for each shape, and keeps those of 250."""
    command = [sys.executable, "-c", MEMORY, str(built(kind, "int8"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second, third = map(int, done.stdout.split())
    assert second + third < max(first, 40e6), done.stdout


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_a_result_is_not_overwritten_by_the_next(built, kind):
    engine = engines.load(built(kind, "fp32"), threads=1)
    first = engine.infer(feed(2, 8, 0))
    kept = first.copy()
    engine.infer(feed(2, 8, 1))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_inputs_that_cannot_be_written_are_read(built, kind):
    """As Arrow's arrays."""
    engine = engines.load(built(kind, "fp32"), threads=1)
    asked = feed(2, 8)
    expected = engine.infer(asked)
    for array in asked.values():
        array.flags.writeable = False
    np.testing.assert_array_equal(engine.infer(asked), expected)


@pytest.mark.parametrize("batch", [1, 15, 16, 17, 19])
def test_the_number_of_threads_changes_no_answer(built, batch):
    """With two threads a batch of sixteen rows or more is cut into four parts, some of them a row longer."""
    folder = built("openvino", "fp32", head="question_answering")
    one, two = (engines.load(folder, threads).infer(feed(batch, 11)) for threads in (1, 2))
    np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", INT8_KINDS)
def test_int8_truly_runs(built, kind):
    evidence = engines.load(built(kind, "int8"), threads=1).evidence()
    assert evidence["int8_gemm_share"] > 0.9
    int8 = sum(n for name, n in evidence["precision_by_type"].items() if name.endswith((" i8", " u8")) and "Mat" in name)
    connected = evidence["precision_by_type"].get("FullyConnected i8", 0)
    assert int8 + connected == 12  # 2 layers of 6, and neither attention nor the head


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_a_float_engine_claims_no_int8(built, kind):
    assert engines.load(built(kind, "fp32"), threads=1).evidence()["int8_gemm_share"] == 0.0


def test_bf16_truly_runs(built):
    if "bf16" not in engines.runtime("openvino").precisions(False):
        pytest.skip(f"the CPU does not multiply bf16: {', '.join(cpu_features())}")
    counts = engines.load(built("openvino", "bf16"), threads=1).evidence()["precision_by_type"]
    assert counts["FullyConnected bf16"] == 14
    assert "FullyConnected f32" not in counts


def test_onnxruntime_offers_no_16_bit(tmp_path, exported):
    runtime = engines.runtime("onnxruntime")
    assert runtime.precisions(False) == ("fp32",)
    with pytest.raises(InputError, match=r"cannot build precision 'bf16'.*take the openvino engine"):
        runtime.build(exported()[1], "bf16", tmp_path)


@pytest.mark.parametrize(("kind", "precision", "variant"), ALL)
def test_the_record_says_what_the_engine_is(built, kind, precision, variant):
    record = json.loads((built(kind, precision, variant) / "engine.json").read_text())
    assert (record["kind"], record["precision"], record["variant"]) == (kind, precision, variant)
    assert record["inputs"] == ["input_ids", "attention_mask", "token_type_ids"]
    assert record["runtime_version"] and record["default_threads"] >= 1


@pytest.mark.parametrize("kind", INT8_KINDS)
def test_an_int8_engine_is_small(built, kind):
    # the graph of ONNX Runtime holds its operators too
    file, bound = {"openvino": ("model.bin", 0.5), "onnxruntime": ("model.onnx", 0.6)}[kind]
    sizes = {precision: (built(kind, precision) / file).stat().st_size for precision in ("fp32", "int8")}
    # of the 98 thousand weights the encoder has 66 thousand
    assert sizes["int8"] < bound * sizes["fp32"]


def test_an_unknown_kind_is_named():
    with pytest.raises(InputError, match="'tensorflow' is unknown; expected one of openvino, onnxruntime"):
        engines.runtime("tensorflow")


def test_a_missing_runtime_says_what_to_install(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    with pytest.raises(MachineError, match=r"needs the Python package openvino.*pip install openvino"):
        engines.runtime("openvino").require()


class Missing:
    """An import system on which OpenVINO is not installed."""

    def find_spec(self, name, path=None, target=None):
        if name == "openvino":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_an_engine_of_a_better_cpu_is_refused(built, tmp_path):
    record = json.loads((built("onnxruntime", "fp32") / "engine.json").read_text())
    record["cpu_features"].append("amx_of_the_future")
    (tmp_path / "engine.json").write_text(json.dumps(record))
    with pytest.raises(MachineError, match="was built on a CPU with amx_of_the_future, which this one lacks"):
        engines.load(tmp_path)


@pytest.fixture
def saturating(monkeypatch):
    """A CPU without VNNI, as OpenVINO's engines see it."""
    monkeypatch.setattr("optkit.engines.openvino.int8_saturates", lambda: True)


def test_where_int8_would_saturate_openvino_leaves_it_out(saturating, exported, tmp_path):
    runtime = engines.runtime("openvino")
    assert runtime.precisions(True) == ()
    with pytest.raises(InputError, match="OpenVINO cannot build precision 'int8'"):
        runtime.build(exported(is_quantised=True)[1], "int8", tmp_path)
    with pytest.raises(InputError, match="Engines openvino: none is built from a quantised graph on this machine"):
        plan(["openvino"], quantised=True)


def test_an_openvino_int8_engine_of_another_machine_is_refused_where_it_would_saturate(saturating, tmp_path):
    record = {"kind": "openvino", "precision": "int8", "variant": "f32", "inputs": [], "cpu_features": ["avx512_vnni"]}
    (tmp_path / "engine.json").write_text(json.dumps(record))
    with pytest.raises(MachineError, match=r"saturates in OpenVINO on a CPU without VNNI.*Build it again"):
        engines.load(tmp_path)


def test_onnxruntime_stores_weights_unsigned_where_signed_ones_would_saturate(built):
    """What comes of it, `test_an_engine_answers_as_its_graph` checks."""
    graph = onnx.load(built("onnxruntime", "int8") / "model.onnx").graph
    kinds = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    stored = [tensor.data_type for tensor in graph.initializer if len(tensor.dims) == 2 and tensor.data_type in kinds]
    assert stored == [kinds[int8_saturates()]] * 12


def test_a_folder_without_an_engine_says_so(tmp_path):
    with pytest.raises(InputError, match=r"engine.json is missing. Build one: optkit build"):
        engines.load(tmp_path)
    (tmp_path / "engine.json").write_text('{"kind": "openvino"}')
    with pytest.raises(InputError, match="lacks cpu_features, inputs, precision, variant"):
        engines.load(tmp_path)


def test_build_wants_an_empty_folder(tmp_path, exported):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds note.txt"):
        engines.runtime("onnxruntime").build(exported()[1], "fp32", tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        engines.runtime("openvino").build(exported()[1], "fp32", tmp_path / "absent")


def test_engines_load_without_torch(built):
    """The server's processes load engines with little more than NumPy and the runtime."""
    code = (
        "import sys; from pathlib import Path; from optkit.engines import registry as engines; import numpy as np\n"
        "feed = {n: np.ones((1, 4), np.int64) for n in ('input_ids', 'attention_mask', 'token_type_ids')}\n"
        "for folder in sys.argv[1:]: engines.load(Path(folder)).infer(feed)\n"
        "print(sorted({'torch', 'transformers', 'modelopt', 'onnx'} & set(sys.modules)))"
    )
    folders = [str(built(kind, precision, variant)) for kind, precision, variant in ALL]
    done = subprocess.run([sys.executable, "-c", code, *folders], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
