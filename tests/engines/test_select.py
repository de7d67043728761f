"""Conversion keeps the fastest engine that agrees, refuses the others with their numbers, and leaves no half a folder."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from optkit.core.errors import GateError, InputError, MachineError
from optkit.engines import registry as engines
from optkit.engines.candidate import Candidate, judge
from optkit.engines.select import Conversion, _choose, convert, plan, undecided
from optkit.graph import reference
from optkit.tasks.classification import Classification
from optkit.tasks.question_answering import QuestionAnswering
from tests.engines.conftest import CPU_KINDS
from tests.graph.models import feed

pytestmark = pytest.mark.slow

QUICK = {"shapes": ((1, 8), (4, 64)), "max_length": 32, "rounds": 2, "threads": 1, "task": Classification}
FEEDS = [feed(8, 32, 0), feed(3, 9, 1)]


def with_scale(source, target, factor):
    """The graph with the scale of one quantiser multiplied: it still runs, and computes something else."""
    model = onnx.load(source)
    quantiser = [node for node in model.graph.node if node.op_type == "QuantizeLinear"][2]
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == quantiser.input[1])
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(factor), scale.name))
    onnx.save(model, target)
    return target


def test_a_float_graph_gives_an_engine_per_precision(exported, tmp_path):
    conversion = convert(exported()[1], tmp_path, quantised=False, feeds=FEEDS, **QUICK)
    precisions = {precision for kind in CPU_KINDS for precision in engines.runtime(kind).precisions(False)}
    assert set(conversion.chosen) == precisions
    assert {path.name for path in tmp_path.iterdir()} == {*precisions, "conversion.json"}
    for folder in conversion.chosen.values():
        assert engines.load(folder, 1).infer(FEEDS[0]).shape == (8, 3)
    for candidate in conversion.candidates:
        assert candidate.agreed, candidate.refusal
        assert set(candidate.ms) == {"1x8", "4x32"}  # clipped to the longest input
    fp32 = [candidate for candidate in conversion.candidates if candidate.precision == "fp32"]
    assert min(fp32, key=Candidate.speed_ms).chosen
    assert json.loads((tmp_path / "conversion.json").read_text()) == json.loads(json.dumps(conversion.to_dict()))


def test_a_quantised_graph_gives_int8_with_its_evidence(exported, tmp_path):
    conversion = convert(exported(is_quantised=True)[1], tmp_path, quantised=True, feeds=FEEDS, **QUICK)
    assert set(conversion.chosen) == {"int8"}
    chosen = next(candidate for candidate in conversion.candidates if candidate.chosen)
    assert chosen.evidence["int8_gemm_share"] > 0.9
    assert chosen.relative_difference < 0.1
    assert chosen.predictions == 11


def test_a_disk_without_room_for_an_engine_is_named(tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    (tmp_path / "engines").mkdir()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
    with pytest.raises(MachineError, match=r"cannot be written: No space left on device \(0 MB free\)"):
        convert(tmp_path / "model.onnx", tmp_path / "engines", quantised=False, feeds=FEEDS, **QUICK)
    assert not list((tmp_path / "engines").iterdir())


@pytest.fixture
def openvino_int8(monkeypatch):
    """OpenVINO's INT8 is a candidate, also on a CPU on which it would saturate."""
    monkeypatch.setattr("optkit.engines.openvino.int8_saturates", lambda: False)


@pytest.mark.usefixtures("openvino_int8")
def test_an_engine_that_disagrees_is_refused_and_the_other_taken(exported, tmp_path, monkeypatch):
    graph = exported(is_quantised=True)[1]
    wrong = with_scale(graph, tmp_path / "wrong.onnx", 1 / 8)
    runtime = engines.runtime("openvino")
    monkeypatch.setattr(runtime, "build", lambda graph, *rest, build=runtime.build: build(wrong, *rest))
    (tmp_path / "engines").mkdir()
    conversion = convert(graph, tmp_path / "engines", quantised=True, feeds=FEEDS, **QUICK)
    assert next(candidate.kind for candidate in conversion.candidates if candidate.chosen) == "onnxruntime"
    refused = [candidate for candidate in conversion.candidates if candidate.kind == "openvino"]
    assert refused
    for candidate in refused:
        assert not candidate.agreed and not candidate.ms
        assert "logits differ from the reference by" in candidate.refusal


def test_where_nothing_agrees_the_numbers_are_in_the_error_and_the_folder_is_empty(exported, tmp_path, monkeypatch):
    graph = exported(is_quantised=True)[1]
    wrong = with_scale(graph, tmp_path / "wrong.onnx", 1 / 8)
    for kind in CPU_KINDS:
        runtime = engines.runtime(kind)
        monkeypatch.setattr(runtime, "build", lambda graph, *rest, build=runtime.build: build(wrong, *rest))
    (tmp_path / "engines").mkdir()
    with pytest.raises(GateError, match=r"No int8 engine agrees(.|\n)*int8-onnxruntime-f32: logits differ .* flip"):
        convert(graph, tmp_path / "engines", quantised=True, feeds=FEEDS, **QUICK)
    assert not list((tmp_path / "engines").iterdir())


def test_only_bf16_may_be_missing(caplog):
    fp32 = Candidate("openvino", "fp32", "f32", ms={"1x8": 1.0}, agreed=True)
    bf16 = Candidate("openvino", "bf16", "bf16", refusal="logits differ by 0.2")
    _choose([fp32, bf16])
    assert fp32.chosen and not bf16.chosen
    assert "bf16 is left out" in caplog.text and "bf16-openvino-bf16: logits differ by 0.2" in caplog.text
    fp32.agreed, bf16.agreed, bf16.ms = False, True, {"1x8": 1.0}
    with pytest.raises(GateError, match="No fp32 engine agrees"):
        _choose([fp32, bf16])


def test_timing_ends_where_a_precision_is_decided():
    def timed(kind, precision, ms):
        return Candidate(kind, precision, "f32", ms={"1x8": ms} if ms else {})

    far = [timed("openvino", "fp32", 1.0), timed("onnxruntime", "fp32", 1.6), timed("openvino", "bf16", 1.0)]
    assert undecided(far, "1x8") == set()  # lost, won, and without a rival
    near = [timed("openvino", "int8", 1.0), timed("onnxruntime", "int8", 1.4), timed("tensorrt", "int8", None)]
    assert undecided([*far, *near], "1x8") == {"int8-openvino-f32", "int8-onnxruntime-f32"}
    assert undecided([*far, *near], "4x32") == set()


@pytest.mark.usefixtures("openvino_int8")
def test_a_runtime_that_fails_is_refused_with_its_whole_error(exported, tmp_path, monkeypatch):
    def fail(graph, *rest):
        raise RuntimeError("no kernel for this node")

    monkeypatch.setattr(engines.runtime("openvino"), "build", fail)
    conversion = convert(exported(is_quantised=True)[1], tmp_path, quantised=True, feeds=FEEDS, **QUICK)
    refused = [candidate for candidate in conversion.candidates if candidate.kind == "openvino"]
    assert refused
    for candidate in refused:
        assert "Traceback" in candidate.refusal
        assert "RuntimeError: no kernel for this node" in candidate.refusal
    assert {path.name for path in tmp_path.iterdir()} == {"int8", "conversion.json"}


def test_float_products_are_not_sold_as_int8():
    candidate = Candidate("openvino", "int8", "f32", evidence={"int8_gemm_share": 0.5})
    logits = [np.array([[1.0, 2.0]])]
    judge(candidate, logits, logits, [np.ones((1, 4))], 0.1, False)
    assert candidate.refusal == "only 50% of the weights' multiply-adds run in INT8, expected at least 90%"


def test_a_chosen_engine_that_has_lost_its_masks_is_named(tmp_path):
    found = [
        Candidate("openvino", "int8", "f32", evidence={"sparse_weights": 12}, chosen=True),
        Candidate("openvino", "bf16", "bf16", evidence={"sparse_weights": 3}, chosen=True),
        Candidate("onnxruntime", "int8", "f32", evidence={"sparse_weights": 0}),
    ]
    with pytest.raises(GateError) as error:
        Conversion(tmp_path, tuple(found)).check_masks(12)
    assert str(error.value).splitlines() == [
        "2:4 sparsity is broken in the engine, expected 12 such weights:",
        "  bf16-openvino-bf16: 3 2:4 weights",
    ]
    Conversion(tmp_path, tuple(found)).check_masks(3)


def test_judging_by_hand():
    expected = [np.array([[0.0, 4.0], [4.0, 0.0]])]
    candidate = Candidate("openvino", "fp32", "f32")
    judge(candidate, [np.array([[0.0, 4.0], [1.0, 2.0]])], expected, [np.ones((2, 4))], 0.1, False, Classification.decisions)
    # differences 0, 0, 3, 2; the logits lie 2 from their mean
    assert (candidate.largest_difference, candidate.mean_difference) == (3.0, 1.25)
    assert candidate.relative_difference == 0.625
    assert (candidate.prediction_flips, candidate.predictions) == (1, 2)
    assert not candidate.agreed


def test_logits_of_padding_do_not_count_for_question_answering():
    expected = np.random.default_rng(0).normal(size=(1, 4, 2))
    found = expected.copy()
    found[:, 2:] = 1e6
    candidate = Candidate("openvino", "fp32", "f32")
    judge(candidate, [found], [expected], [np.array([[1, 1, 0, 0]])], 0.1, True, QuestionAnswering.decisions)
    assert candidate.agreed
    assert (candidate.largest_difference, candidate.prediction_flips, candidate.predictions) == (0.0, 0, 2)


def test_nan_never_agrees():
    expected = [np.array([[0.0, 4.0]])]
    candidate = Candidate("openvino", "fp32", "f32")
    judge(candidate, [np.full((1, 2), np.nan)], expected, [np.ones((1, 4))], 0.1, False)
    assert not candidate.agreed


def test_plan_names_every_variant(monkeypatch):
    names = [candidate.name for candidate in plan(("onnxruntime",), True)]
    assert names == ["int8-onnxruntime-f32"]
    monkeypatch.setattr(engines.runtime("openvino"), "precisions", lambda quantised: ())
    with pytest.raises(
        InputError, match=r"Engines openvino: none is built from a quantised graph .* Choose among onnxruntime"
    ):
        plan(("openvino",), True)


def test_feeds_are_wanted(exported, tmp_path):
    with pytest.raises(InputError, match="there are 0 feeds"):
        convert(exported()[1], tmp_path, quantised=False, feeds=[], **QUICK)


def test_the_reference_really_rounds(exported):
    graph = exported(is_quantised=True)[1]
    handle, plain = reference.load(graph), reference.load(exported()[1])
    assert np.abs(reference.infer(handle, FEEDS[0]) - reference.infer(plain, FEEDS[0])).max() > 1e-3
