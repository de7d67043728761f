"""The gate's promises of engines on a GPU, which only a card can break for real."""

import dataclasses

import pytest

from optkit.evaluation.gate import judge
from optkit.evaluation.results import Row

ROW = Row(
    recipe="sparse_qat",
    task="sample",
    seed=0,
    metric="accuracy",
    value=90.0,
    baseline=90.0,
    delta=0.0,
    delta_ci95=[-0.1, 0.1],
    layers=6,
    sparsity="2:4",
    precision="int8",
    engine="tensorrt",
    size_bytes=1,
    rungs={},
    latency_ms={},
    throughput={},
    speedup={"1": 3.0},
    speedup_vs_16bit={"1": 0.9, "8": 1.2},
    evidence={"int8_gemm_share": 0.99, "sparse_layers_chosen": 12, "sparse_layers_eligible": 24},
    served_by="",
    max_drop=1.0,
)


KINDS = ("tensorrt", "torch")


@pytest.mark.parametrize("kind", KINDS)
def test_a_sparse_engine_that_is_faster_on_the_whole_passes(kind):
    assert judge(dataclasses.replace(ROW, engine=kind)) == ("pass", [])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("eligible", "text"), [(24, "24"), (None, "unknown")])
def test_a_sparse_engine_without_sparse_kernels_fails(kind, eligible, text):
    dense = {"int8_gemm_share": 0.99, "sparse_layers_chosen": 0, "sparse_layers_eligible": eligible}
    row = dataclasses.replace(ROW, engine=kind, evidence=dense)
    assert judge(row) == ("fail", [f"no layer runs a 2:4 kernel ({text} were eligible)"])
    assert judge(dataclasses.replace(row, sparsity=None))[0] == "pass"
    assert judge(dataclasses.replace(row, evidence={**dense, "sparse_layers_chosen": None}))[0] == "pass"


def test_an_fp8_engine_is_judged_as_an_int8_one():
    changes = {"pytorch": {"relative_mean": 0.1, "relative_largest": 0.5, "flips": 0}}
    changes["engine"] = {"relative_mean": 0.12, "relative_largest": 0.6, "flips": 0}
    row = dataclasses.replace(ROW, engine="torch", precision="fp8", ladder={"float": {}, **changes})
    full = {"fp8_gemm_share": 1.0, "variant": "bf16", "sparse_layers_chosen": 1}
    assert judge(dataclasses.replace(row, evidence=full)) == ("pass", [])
    verdict, reasons = judge(dataclasses.replace(row, evidence={**full, "fp8_gemm_share": 0.5}))
    assert (verdict, reasons) == ("fail", ["only 50% of the matrix products run in FP8"])
