"""The comparison as people and scripts read it."""

import csv
import io
import json
import re
from dataclasses import replace

import pytest

from optkit.core.errors import InputError
from optkit.evaluation.results import Refusal, Row
from optkit.report.table import FORMATS, render

CONTRACT = {
    *("recipe", "task", "seed", "metric", "value", "baseline", "delta", "delta_ci95", "layers", "sparsity", "precision"),
    *("engine", "size_bytes", "rungs", "latency_ms", "throughput", "speedup", "speedup_vs_16bit", "evidence"),
    *("served_by", "verdict", "reasons"),
}
"""The fields that scripts rely on."""

BASELINE = Row(
    recipe="baseline_fp32",
    task="sample",
    seed=0,
    metric="accuracy",
    value=95.25,
    baseline=95.25,
    delta=0.0,
    delta_ci95=[0.0, 0.0],
    layers=12,
    sparsity=None,
    precision="fp32",
    engine="openvino",
    size_bytes=9_912_345,
    rungs={"pytorch": 95.25, "graph": 95.25, "engine": 95.25, "server": 95.25},
    latency_ms={"1": {"p50": 2.0, "p95": 2.5, "p99": 3.0}, "8": {"p50": 8.125, "p95": 9.0, "p99": 9.5}},
    throughput={"1": 480.0, "8": 950.0},
    speedup={"1": 1.0, "8": 1.0},
    speedup_vs_16bit=None,
    evidence={"int8_gemm_share": 0.0},
    served_by="tritonserver 2.60.0",
    max_drop=1.0,
    scores={"accuracy": 95.25, "f1": 95.0},
)
INT8 = replace(
    BASELINE,
    recipe="qat_gelu10",
    value=94.95,
    delta=-0.3,
    delta_ci95=[-1.05, 0.45],
    precision="int8",
    size_bytes=2_600_000,
    latency_ms={"1": {"p50": 1.0, "p95": 1.1, "p99": 1.2}, "8": {"p50": 3.25, "p95": 3.5, "p99": 3.75}},
    speedup={"1": 2.0, "8": 2.5},
    speedup_vs_16bit={"1": 1.5, "8": 1.25},
    evidence={"int8_gemm_share": 1.0, "encoder_gemms": 72},
    verdict="undecided",
    reasons=["delta -0.30 [-1.05, +0.45] reaches below -1 points: more evaluation examples or seeds would decide"],
)

TABLE = """\
sample: accuracy and speed, served by tritonserver 2.60.0 (seeds: 0)

 recipe         precision  engine    accuracy          delta [95 %]   MB  p50 ms @1/8  speed-up @1/8  vs 16-bit  INT8  gate
 ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
 baseline_fp32  fp32       openvino     95.25  +0.00 [+0.00, +0.00]  9.9      2.0/8.1      1.00/1.00               0%  pass
 qat_gelu10     int8       openvino     94.95  -0.30 [-1.05, +0.45]  2.6      1.0/3.2      2.00/2.50  1.50/1.25  100%  undecided

qat_gelu10 int8: undecided: delta -0.30 [-1.05, +0.45] reaches below -1 points: more evaluation examples or seeds would decide
"""  # noqa: E501


def test_the_table_for_people() -> None:
    assert "\n".join(line.rstrip() for line in render([BASELINE, INT8], "table").splitlines()) + "\n" == TABLE


def test_a_recipe_of_several_seeds_is_one_line() -> None:
    pooled = replace(INT8, seed=None, seeds=[0, 1], value=94.5)
    rows = [BASELINE, INT8, replace(INT8, seed=1, value=94.05), pooled]
    lines = [line for line in render(rows, "table").splitlines() if " qat_gelu10 " in line]
    assert len(lines) == 1 and "94.50" in lines[0]
    assert len(json.loads(render(rows, "json"))) == 4


def test_another_precision_of_a_recipe_is_a_line_of_its_own() -> None:
    rows = [BASELINE, replace(BASELINE, precision="bf16", seed=None), INT8]
    assert sum("baseline_fp32" in line for line in render(rows, "table").splitlines()) == 2


def test_no_name_is_cut_off() -> None:
    long = replace(INT8, recipe="distill_6l_sparse_qat", engine="onnxruntime", verdict="undecided")
    assert "distill_6l_sparse_qat" in render([BASELINE, long], "table")
    assert "…" not in render([BASELINE, long], "table")


def test_every_line_of_a_reason_stays_whole() -> None:
    reason = f"only 50% of the matrix products run in INT8, {', '.join(['and so on'] * 20)}"
    assert reason in render([BASELINE, replace(INT8, reasons=[reason])], "table")


def test_markup_in_a_name_is_text() -> None:
    assert "[bold]" in render([replace(BASELINE, served_by="[bold]server"), INT8], "table")


def test_json_has_the_fields_that_scripts_rely_on() -> None:
    rows = json.loads(render([BASELINE, INT8], "json"))
    assert all(row.keys() >= CONTRACT for row in rows)
    assert rows[0]["speedup_vs_16bit"] is None and rows[0]["sparsity"] is None
    assert rows[1]["latency_ms"]["8"] == {"p50": 3.25, "p95": 3.5, "p99": 3.75}
    assert [Row(**row) for row in rows] == [BASELINE, INT8]


def test_csv_has_a_column_for_every_number() -> None:
    rows = list(csv.DictReader(io.StringIO(render([BASELINE, INT8], "csv"))))
    assert [row["recipe"] for row in rows] == ["baseline_fp32", "qat_gelu10"]
    assert float(rows[1]["latency_ms.8.p50"]) == 3.25
    assert float(rows[1]["speedup_vs_16bit.1"]) == 1.5 and rows[0]["speedup_vs_16bit.1"] == ""
    assert rows[1]["evidence.encoder_gemms"] == "72" and rows[0]["evidence.encoder_gemms"] == ""
    assert json.loads(rows[1]["delta_ci95"]) == [-1.05, 0.45]
    assert json.loads(rows[1]["reasons"]) == INT8.reasons
    assert rows[0]["sparsity"] == ""


def test_csv_and_json_say_the_same() -> None:
    of_csv = list(csv.DictReader(io.StringIO(render([BASELINE, INT8], "csv"))))
    for row, text in zip(json.loads(render([BASELINE, INT8], "json")), of_csv, strict=True):
        for name, value in row.items():
            if isinstance(value, str):
                assert text[name] == value
            elif isinstance(value, float | int):
                assert float(text[name]) == value
            elif isinstance(value, dict):
                for key, part in value.items():
                    if not isinstance(part, dict):
                        assert float(text[f"{name}.{key}"]) == part


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_ends_its_last_line(form: str) -> None:
    text = render([BASELINE, INT8], form)
    assert text.endswith("\n") and not text.endswith("\n\n")
    assert "\x1b" not in text


STAGES = [
    {"stage": "distill", "delta": -0.75, "ci95": [-1.5, 0.0]},
    {"stage": "quantize", "delta": 0.5, "ci95": [-0.25, 1.25]},
    {"stage": "engine", "delta": -0.05, "ci95": [-0.1, 0.0]},
]
BY_STAGE = """\
Loss by stage: points against the stage before [95 %]; all but the last in PyTorch

 recipe         precision               distill               quantize                engine         in all, served
 ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
 baseline_fp32  fp32                                                    +0.10 [+0.00, +0.20]   +0.00 [+0.00, +0.00]
 distill_6l     int8       -0.75 [-1.50, +0.00]   +0.50 [-0.25, +1.25]  -0.05 [-0.10, +0.00]   -0.30 [-1.05, +0.45]
"""


def test_the_loss_by_stage_stands_below_the_table() -> None:
    engine = [{"stage": "engine", "delta": 0.1, "ci95": [0.0, 0.2]}]
    rows = [replace(BASELINE, stages=engine), replace(INT8, recipe="distill_6l", stages=STAGES)]
    lines = render(rows, "table").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("Loss by stage"))
    found = [line.split() for line in lines[start : start + 7] if line.strip(" ─")]
    expected = [line.split() for line in BY_STAGE.splitlines() if line.strip(" ─")]
    assert found == expected
    assert lines[start + 2].split()[2:5] == ["distill", "quantize", "engine"], (
        "in the order of the stages, those that are there"
    )


def test_without_stages_there_is_no_second_table() -> None:
    engine = [{"stage": "engine", "delta": 0.1, "ci95": [0.0, 0.2]}]
    assert "Loss by stage" not in render([replace(BASELINE, stages=engine), INT8], "table")


def test_json_and_csv_hold_the_stages() -> None:
    row = replace(INT8, stages=STAGES)
    assert json.loads(render([row], "json"))[0]["stages"] == STAGES
    assert json.loads(next(csv.DictReader(io.StringIO(render([row], "csv"))))["stages"]) == STAGES


CHANGED = replace(
    INT8, kl=0.0033, kl_ci95=[0.003, 0.0036], flips=1.25, flips_ci95=[1, 1.5], nll_change=-0.002, nll_change_ci95=[-0.01, 0]
)


def test_changes_of_answers_stand_below_the_table() -> None:
    lines = render([BASELINE, CHANGED], "table").splitlines()
    (line,) = (line for line in lines if "0.0033" in line)
    expected = "qat_gelu10 int8 0.0033 [0.0030, 0.0036] 1.25 [1.00, 1.50] -0.0020 [-0.0100, +0.0000]"
    assert " ".join(line.split()) == expected
    without = replace(CHANGED, nll_change=None, nll_change_ci95=None)
    assert "NLL" not in render([BASELINE, without], "table") and "KL (nats)" in render([BASELINE, without], "table")


def test_the_page_has_them_and_how_many_groups_were_drawn() -> None:
    page = render([replace(CHANGED, examples=8000, groups=2200)], "html")
    assert "0.0033 [0.0030, 0.0036]" in page and "8,000 examples in 2,200 groups" in page
    assert "Answers against the baseline" not in render([BASELINE, INT8], "html")


DEEP = "a student of 9 layers is deeper than its teacher of 2; give at most 2"
REFUSAL = Refusal("distill_9l", "sample", "accuracy", [DEEP])


def test_a_recipe_that_does_not_apply_is_in_the_table_with_its_reason() -> None:
    lines = render([BASELINE, INT8, REFUSAL], "table").splitlines()
    (line,) = (line for line in lines if line.startswith(" distill_9l"))
    assert line.split() == ["distill_9l", "refused"]
    assert lines[-1] == f"distill_9l: refused: {DEEP}"


def test_a_recipe_that_does_not_apply_has_the_fields_that_scripts_rely_on() -> None:
    row = json.loads(render([BASELINE, INT8, REFUSAL], "json"))[-1]
    assert row.keys() >= CONTRACT
    told = {"recipe": "distill_9l", "task": "sample", "metric": "accuracy", "verdict": "refused", "reasons": [DEEP]}
    assert {name: value for name, value in row.items() if value is not None} == told
    rows = list(csv.DictReader(io.StringIO(render([BASELINE, INT8, REFUSAL], "csv"))))
    assert {name: value for name, value in rows[-1].items() if value} == {**told, "reasons": json.dumps([DEEP])}
    assert rows[0].keys() == next(csv.DictReader(io.StringIO(render([BASELINE, INT8], "csv")))).keys()


def test_a_recipe_that_does_not_apply_is_on_the_page() -> None:
    assert f'distill_9l: <b class="fail">refused</b>: {DEEP}' in render([BASELINE, INT8, REFUSAL], "html")
    assert "refused</b>" not in render([BASELINE, replace(INT8, reasons=[])], "html")


def test_nothing_that_was_measured_is_no_table() -> None:
    with pytest.raises(InputError, match="found no rows"):
        render([REFUSAL], "table")


@pytest.mark.parametrize("form", FORMATS)
def test_names_from_elsewhere_are_neither_commands_nor_formulas(form: str) -> None:
    row = replace(INT8, recipe="\x1b[2J=1", engine="=cmd|' /C calc'!A0", served_by="@sum", reasons=["<b>\x1b]0;x\x07"])
    text = render([BASELINE, replace(row, evidence={"=now()": "+1"})], form)
    assert "<b>" not in text if form == "html" else True
    if form in ("table", "csv"):
        assert "\x1b" not in text and "\x07" not in text
    if form == "csv":
        cells = [one for row in csv.reader(io.StringIO(text)) for one in row]
        assert "'=cmd|' /C calc'!A0" in cells and "'@sum" in cells and "'+1" in cells
        numbers = re.compile(r"[+-]?[\d.]+")
        assert not [one for one in cells if one.startswith(("=", "+", "-", "@")) and not numbers.fullmatch(one)]


def test_what_is_slower_than_fp32_is_said() -> None:
    slow = replace(INT8, speedup={"1": 0.9, "8": 2.5}, speedup_ci95={"1": [0.85, 0.95], "8": [2.3, 2.7]})
    assert "qat_gelu10 int8: slower than FP32: 0.90 times its speed at batch 1\n" in render([BASELINE, slow], "table")
    noise = replace(slow, speedup_ci95={"1": [0.85, 1.05], "8": [2.3, 2.7]})
    assert "slower than FP32" not in render([BASELINE, noise], "table")
