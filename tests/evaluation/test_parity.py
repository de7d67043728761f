"""A broken engine is caught at the rung where it breaks: real engines behind a real server, with one thing wrong."""

import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from optkit.core.errors import GateError
from optkit.core.json_door import read_json
from optkit.engines import registry as engines
from optkit.evaluation import parity
from optkit.evaluation.artifacts import EVIDENCE, EXAMPLES, SCORES
from optkit.evaluation.difference import difference
from optkit.evaluation.gate import judge
from optkit.evaluation.validation import validate
from optkit.graph.passes import MASKED
from optkit.tasks.outcomes import value
from tests.report.test_table import BASELINE

pytestmark = pytest.mark.server

RUNGS = ("float", "pytorch", "graph", "engine", "server")
QUERY = "layer.0.attention.self.query.weight"


def changed(source, target, find, change):
    """The graph with one stored array changed; it still runs, and computes something else."""
    model = onnx.load(source)
    stored = [tensor for tensor in model.graph.initializer if find(tensor)]
    stored += [part.t for node in model.graph.node for part in node.attribute if part.HasField("t") and find(part.t)]
    assert len(stored) == 1, [tensor.name for tensor in model.graph.initializer]
    array = numpy_helper.to_array(stored[0])
    stored[0].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(array)).astype(array.dtype), stored[0].name))
    onnx.save(model, target)
    return target


def doubled_scale(source, target):
    return changed(source, target, lambda tensor: tensor.name.endswith(f"{QUERY}.scale"), lambda array: array * 2)


def transposed_weight(source, target):
    """The square weight of the first query, behind the product of that name."""
    graph = onnx.load(source).graph
    made_by = {name: node for node in graph.node for name in node.output}
    stored = {tensor.name for tensor in graph.initializer}
    name = next(
        node.input[1] for node in graph.node if node.op_type == "MatMul" and "layer.0/attention/self/query" in node.name
    )
    while name not in stored:
        name = made_by[name].input[0]
    return changed(source, target, lambda tensor: tensor.name == name, np.transpose)


def no_mask(source, target):
    def is_mask(tensor):
        array = numpy_helper.to_array(tensor)
        return array.size == 1 and array.dtype == np.float32 and float(array.reshape(-1)[0]) == MASKED

    return changed(source, target, is_mask, np.zeros_like)


RIGHT = replace(BASELINE, evidence={"int8_gemm_share": 1.0})
BREAK = {"scale": doubled_scale, "transposed": transposed_weight, "mask": no_mask}


@pytest.fixture
def validated(answering, tiny_task, tmp_path):
    """Validates an engine of the tiny model: `(precision, broken graph or None, place of the break) -> folder`."""

    def run(precision, how=None, at="engine"):
        made = answering[precision]
        (tmp_path / "graph").mkdir()
        graph = shutil.copy(made.graph, tmp_path / "graph" / "model.onnx")
        source = BREAK[how](made.graph, tmp_path / "broken.onnx") if how else graph
        if at == "graph":
            shutil.copy(source, graph)
        own = tmp_path / "engines"
        (own / precision).mkdir(parents=True)
        (tmp_path / "served").mkdir()
        engines.runtime("onnxruntime").build(source, precision, own / precision)
        logs = tmp_path / "logs"
        validate(tiny_task, made.loaded, made.features, own, own, tmp_path / "served", logs, 0.0)
        return tmp_path / "served"

    return run


def verdict(folder, precision):
    """What the gate says of a validated engine, everything else being in order."""
    evidence = read_json(folder / EVIDENCE)["precisions"][precision]
    return judge(replace(RIGHT, precision=precision, ladder=evidence["ladder"], invariance=evidence["invariance"]))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_right_engine_passes(precision, validated, tiny_task):
    folder = validated(precision)
    assert verdict(folder, precision) == ("pass", [])
    evidence = read_json(folder / EVIDENCE)["precisions"][precision]
    assert list(evidence["ladder"]) == list(RUNGS[precision == "fp32" :])
    rounding = {name: moved for name, moved in evidence["ladder"]["pytorch"].items() if name.startswith("redrawn_")}
    assert set(rounding) == (set() if precision == "fp32" else {"redrawn_mean", "redrawn_largest"})
    assert all(0 <= moved < evidence["ladder"]["pytorch"][f"relative_{name[8:]}"] for name, moved in rounding.items())
    assert evidence["ladder"]["server"]["largest"] == 0
    assert evidence["ladder"]["server"]["value"] > 80
    assert evidence["sharing"]["batches"] < evidence["sharing"]["requests"] == 12
    with np.load(folder / SCORES) as scores:
        assert value(scores[precision], "accuracy") == evidence["ladder"]["server"]["value"]
    examples = read_json(folder / EXAMPLES)[precision]
    rows = tiny_task.examples("dev")
    assert examples[0]["row"]["sentence"] == rows[examples[0]["example"]]["sentence"]
    assert set(examples[0]["predictions"]) == set(evidence["ladder"]) and len(examples[0]["logits"]["server"]) == 2


@pytest.mark.parametrize(("precision", "how"), [("int8", "scale"), ("int8", "transposed"), ("fp32", "transposed")])
def test_an_engine_with_a_wrong_weight_is_caught_at_the_engine(precision, how, validated):
    found, reasons = verdict(validated(precision, how), precision)
    assert found == "fail" and len(reasons) == 1
    assert reasons[0].startswith("the rung 'engine' moves the logits by ")
    assert "from the rung 'graph'" in reasons[0] and "optkit explain" in reasons[0]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_padding_that_is_not_masked_is_caught_at_the_engine_and_by_the_server(precision, validated):
    found, reasons = verdict(validated(precision, "mask"), precision)
    assert found == "fail"
    assert reasons[0].startswith("the rung 'engine' moves the logits by ")
    assert any(reason.startswith("the served answer depends on padding: it moves by ") for reason in reasons)
    assert any(reason.startswith("the served answer depends on the examples beside it") for reason in reasons)
    assert not any("rung 'server'" in reason or "rung 'graph'" in reason.partition("from")[0] for reason in reasons)


def test_a_graph_that_is_wrong_is_caught_at_the_graph_and_not_later(validated):
    found, reasons = verdict(validated("int8", "scale", at="graph"), "int8")
    assert found == "fail" and len(reasons) == 1
    assert reasons[0].startswith("the rung 'graph' moves the logits by ")


def test_a_server_that_runs_another_engine_is_caught_at_the_server(validated, answering, tmp_path, monkeypatch):
    right = tmp_path / "right"
    right.mkdir()
    engines.runtime("onnxruntime").build(answering["int8"].graph, "int8", right)
    at_engine = parity.at_engine
    monkeypatch.setattr(parity, "at_engine", lambda folder, *rest: at_engine(right, *rest))
    found, reasons = verdict(validated("int8", "scale"), "int8")
    assert found == "fail" and len(reasons) == 1
    assert reasons[0].startswith("the rung 'server' moves the logits by ")


def test_the_flipped_examples_come_first_and_say_where(answering, tiny_task):
    features = answering["fp32"].features
    logits = [np.array([1.0, -1.0])] * len(features)
    moved = [row[::-1].copy() if index == 40 else row + 5 * (index == 7) for index, row in enumerate(logits)]
    rungs = parity.rungs(tiny_task, features, {"graph": logits, "engine": moved})
    found = parity.worst(tiny_task, features, rungs, most=2)
    assert [one["example"] for one in found] == [40, 7]
    assert found[0]["flips"] == ["engine"] and found[1]["flips"] == []
    assert found[0]["predictions"] == {"graph": "bad", "engine": "good"}
    assert found[0]["row"]["label"] in ("bad", "good")
    assert found[1]["moved"] == {"engine": 5.0}
    assert parity.climb(tiny_task, rungs)["engine"]["flips"] == 1


def test_a_rung_that_answers_nan_is_named(answering, tiny_task):
    features = answering["fp32"].features
    logits = [np.full(2, np.nan)] * len(features)
    with pytest.raises(GateError, match="rung 'engine': logits of 64 of 64 features"):
        parity.rungs(tiny_task, features, {"engine": logits})


def test_what_float32_cannot_tell_apart_is_no_difference():
    constant = [np.array([0.5, 0.5])]
    assert difference([np.array([0.5 + 6e-8, 0.5])], constant).relative_largest == 0
    assert difference([np.array([0.5 + 6e-7, 0.5])], constant).relative_largest > 1


def test_differences_by_hand():
    found = difference([np.array([1.0, 3.0])], [np.array([0.0, 4.0])])  # the reference's deviation is 2
    assert (found.mean, found.largest, found.relative_mean, found.relative_largest) == (1.0, 1.0, 0.5, 0.5)
    with pytest.raises(ValueError, match="logits of 1 features, expected 2"):
        difference([np.zeros(2)], [np.zeros(2), np.zeros(2)])
