"""The gate: which row passes, which fails, and what is said about those that nobody can judge yet."""

from dataclasses import replace

import pytest

from optkit.evaluation import doubts
from optkit.evaluation.gate import ARITHMETIC, invariance_tolerance, judge, tolerance
from optkit.evaluation.results import Row
from optkit.evaluation.tolerance import SERVED, Tolerance
from tests.report.test_table import BASELINE, INT8

SPEED = {"speedup_ci95": {"1": [1.8, 2.2], "8": [2.3, 2.7]}, "p99_ms_ci95": {"1": [1.1, 1.4], "8": [3.5, 4.0]}}
RIGHT = replace(INT8, delta=0.0, delta_ci95=[-0.5, 0.5], examples=1000, **SPEED)


def moved(mean: float, largest: float, value: float = 95.0, flips: int = 0) -> dict[str, float]:
    relative = {"relative_mean": mean, "relative_largest": largest}
    return {"value": value, "mean": mean, "largest": largest, **relative, "flips": flips}


def ladder(**rungs: dict[str, float]) -> dict[str, dict[str, float]]:
    still = moved(0.0, 0.0)
    return {"float": {"value": 95.0}, "pytorch": moved(0.05, 0.5), "graph": still, "engine": still, "server": still} | rungs


def test_a_row_within_all_thresholds_passes() -> None:
    row = replace(RIGHT, ladder=ladder(), invariance={"padding": moved(0, 0)}, min_speedup=1.5, max_p99_ms=5.0)
    assert judge(row) == ("pass", [])


@pytest.mark.parametrize("kind", ["openvino", "onnxruntime", "tensorrt", "torch"])
@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_eight_bits_that_are_slower_than_16_on_the_whole_fail_on_every_processor(kind: str, precision: str) -> None:
    row = replace(RIGHT, engine=kind, precision=precision, sparsity=None, evidence={})
    slower = replace(row, speedup_vs_16bit={"1": 0.8, "8": 1.2})  # 0.98 in the geometric mean
    said = f"the {precision.upper()} engine is slower than the 16-bit one (0.80x at batch 1, 1.20x at batch 8)"
    assert judge(slower) == ("fail", [said])
    assert judge(replace(row, speedup_vs_16bit={"1": 0.9, "8": 1.2})) == ("pass", [])  # 1.04
    assert judge(replace(slower, workload=[[8, 128]])) == ("pass", []), "for batch 8 it was chosen"
    said = "slower than the 16-bit one (0.80x at batch 1)"
    assert said in judge(replace(row, speedup_vs_16bit={"1": 0.8, "8": 1.9}, workload=[[1, 32], [1, 128]]))[1][0]
    assert judge(replace(slower, workload=[[4, 32]]))[0] == "fail", "nothing is measured at 4: all sizes count"
    assert judge(replace(row, speedup_vs_16bit=None)) == ("pass", []), "the machine has no 16 bits"
    assert judge(replace(slower, precision="fp32"))[0] == "pass", "float engines promise no speed"


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [([-0.9, 0.9], "pass"), ([-1.1, 0.3], "undecided"), ([-2.0, -1.1], "fail"), ([-1.0, -0.9], "pass")],
)
def test_the_drop_is_judged_by_its_interval(interval: list[float], verdict: str) -> None:
    assert judge(replace(RIGHT, delta=sum(interval) / 2, delta_ci95=interval))[0] == verdict


def test_how_many_more_examples_or_seeds_would_decide() -> None:
    # the interval reaches 1 point down, the threshold is 0.5 away: half the width takes 4 times as many, 3 times more
    row = replace(RIGHT, delta=-0.5, delta_ci95=[-1.5, 0.5])
    assert judge(row) == (
        "undecided",
        [
            "delta -0.50 [-1.50, +0.50] reaches below -1 points: about 3,000 more evaluation examples or 3 more seeds would "
            "decide, if it stays"
        ],
    )
    assert "6 more seeds" in judge(replace(row, seeds=[0, 1]))[1][0]
    # below the threshold it is the upper end that has to come down: from 0.5 to 0.25 beneath the threshold
    below = replace(RIGHT, delta=-1.25, delta_ci95=[-2.25, -0.75])
    assert "about 3,000 more evaluation examples" in judge(below)[1][0]


def test_a_delta_on_the_threshold_is_not_promised_to_be_decided() -> None:
    found, reasons = judge(replace(RIGHT, delta=-1.0, delta_ci95=[-2.0, 0.0]))
    assert found == "undecided" and reasons[0].endswith("more examples or seeds would hardly decide")


@pytest.mark.parametrize(
    ("rung", "values", "verdict"),
    [
        ("pytorch", moved(0.3, 9.0), "pass"),
        ("pytorch", moved(0.6, 1.0), "fail"),
        ("graph", moved(0.02, 0.5), "pass"),
        ("graph", moved(0.035, 0.5), "fail"),  # below 0.04, and more than 0.6 of what quantization moved
        ("engine", moved(0.0, 1.1), "fail"),
        ("server", moved(0.001, 0.001), "fail"),
        ("engine", moved(float("nan"), 0.0), "fail"),
    ],
)
def test_a_rung_that_moves_too_far_is_named(rung: str, values: dict[str, float], verdict: str) -> None:
    found, reasons = judge(replace(RIGHT, ladder=ladder(**{rung: values})))
    assert found == verdict
    assert all(reason.startswith(f"the rung {rung!r} moves the logits by ") for reason in reasons)


def test_a_float_engine_has_less_room_than_bf16_and_bf16_less_than_int8() -> None:
    row = replace(RIGHT, ladder=ladder())
    fp32, bf16 = replace(row, precision="fp32"), replace(row, precision="bf16")
    rest = replace(row, evidence={"int8_gemm_share": 1.0, "variant": "bf16"})
    rooms = [tolerance("engine", one).mean for one in (fp32, bf16, row, rest)]
    assert rooms == sorted(set(rooms))
    assert tolerance("graph", bf16) == ARITHMETIC["f32"] and tolerance("graph", rest) == tolerance("graph", row)
    assert {tolerance("server", one) for one in (fp32, bf16, row, rest)} == {SERVED}
    assert [invariance_tolerance(one) for one in (fp32, bf16)] == [ARITHMETIC["f32"], ARITHMETIC["bf16"]]


def test_int8_has_the_room_that_rounding_was_measured_to_take() -> None:
    measured = moved(0.08, 0.5) | {"redrawn_mean": 0.048, "redrawn_largest": 0.8}
    row = replace(RIGHT, ladder=ladder(pytorch=measured, graph=moved(0.055, 0.5)))
    assert tolerance("graph", row) == Tolerance(pytest.approx(0.072), pytest.approx(1.2))
    assert invariance_tolerance(row) == Tolerance(0.04, 1.0), "the same engine has no such excuse"
    assert judge(row)[0] == "pass"
    for unmeasured in (moved(0.08, 0.5), moved(0.08, 0.5) | {"redrawn_mean": 0.01, "redrawn_largest": 0.1}):
        assert judge(replace(row, ladder=row.ladder | {"pytorch": unmeasured}))[0] == "fail"


def test_int8_has_the_room_that_its_own_noise_takes() -> None:
    quiet = replace(RIGHT, ladder=ladder(pytorch=moved(0.001, 0.01)))
    assert tolerance("engine", quiet) == Tolerance(0.0006, 0.02)
    silent = replace(RIGHT, ladder=ladder(pytorch=moved(0.0, 0.0)))
    assert tolerance("engine", silent) == ARITHMETIC["f32"]
    assert tolerance("engine", replace(RIGHT, ladder={})) == ARITHMETIC["int8"]
    noisy = replace(RIGHT, ladder={"pytorch": {"relative_mean": 0.25, "relative_largest": 4.0}})
    assert tolerance("graph", noisy) == tolerance("engine", noisy) == Tolerance(0.15, 8.0)
    assert invariance_tolerance(noisy) == ARITHMETIC["int8"], "the same engine has no such excuse"


def test_an_answer_that_depends_on_padding_fails() -> None:
    found, reasons = judge(replace(RIGHT, invariance={"padding": moved(0.3, 1.2), "position": moved(0, 0)}))
    assert found == "fail"
    assert reasons == [
        "the served answer depends on padding: it moves by 0.3 in the mean and 1.2 at most of the logits' spread, where no "
        "more than 0.04 and 1 is expected"
    ]


@pytest.mark.parametrize(
    ("changes", "verdict", "reason"),
    [
        ({"min_speedup": 1.5}, "pass", ""),
        ({"min_speedup": 2.5}, "fail", "speed-up 2.00 [1.80, 2.20] at batch 1 is below 2.5"),
        ({"min_speedup": {"8": 2.4}}, "undecided", "speed-up 2.50 [2.30, 2.70] at batch 8 reaches below 2.4: measuring "),
        ({"min_speedup": {"16": 2.0}}, "undecided", "min_speedup names batch 16, of which there is no measurement"),
        ({"max_p99_ms": {"1": 1.5}}, "pass", ""),
        ({"max_p99_ms": {"8": 3.0}}, "fail", "p99 3.8 ms [3.5, 4.0] at batch 8 is above 3 ms"),
        ({"max_p99_ms": {"1": 1.3}}, "undecided", "p99 1.2 ms [1.1, 1.4] at batch 1 reaches above 1.3 ms: measuring "),
    ],
)
def test_speed_is_judged_by_its_interval(changes: dict, verdict: str, reason: str) -> None:
    found, reasons = judge(replace(RIGHT, **changes))
    assert found == verdict
    assert (reasons or [""])[0].startswith(reason)


def test_how_much_longer_to_measure() -> None:
    row = replace(RIGHT, min_speedup={"8": 2.4})  # the interval reaches 0.2 down, the threshold is 0.1 away
    assert "measuring about 4 times as long (--seconds) would decide, if it stays" in judge(row)[1][0]
    assert "would hardly decide" in judge(replace(RIGHT, min_speedup={"8": 2.5}))[1][0]


CHANGED = replace(RIGHT, kl=0.004, kl_ci95=[0.003, 0.006], flips=1.5, flips_ci95=[1.0, 2.0])


@pytest.mark.parametrize(
    ("thresholds", "verdict", "reason"),
    [
        ({"max_kl": 0.006, "max_flips": 2.0}, "pass", ""),
        ({"max_kl": 0.002}, "fail", "KL 0.004 [0.003, 0.006] nats is above 0.002"),
        (
            {"max_kl": 0.005},
            "undecided",
            "KL 0.004 [0.003, 0.006] nats reaches above 0.005: about 3,000 more evaluation",
        ),
        ({"max_flips": 0.9}, "fail", "flips 1.5 [1, 2] % is above 0.9"),
        ({"max_flips": 1.25}, "undecided", "flips 1.5 [1, 2] % reaches above 1.25: about 3,000 more"),
    ],
)
def test_changes_of_answers_are_judged_where_a_recipe_bounds_them(thresholds: dict, verdict: str, reason: str) -> None:
    found, reasons = judge(replace(CHANGED, **thresholds))
    assert found == verdict and "".join(reasons).startswith(reason)


def test_a_bound_on_what_was_not_measured_decides_nothing() -> None:
    assert judge(RIGHT)[0] == "pass"
    found, reasons = judge(replace(RIGHT, max_kl=0.1, max_flips=5.0))
    assert found == "undecided" and [reason[:13] for reason in reasons] == ["max_kl is set", "max_flips is "]


def test_more_groups_would_decide_where_groups_are_drawn() -> None:
    row = replace(RIGHT, delta=-0.5, delta_ci95=[-1.5, 0.5], groups=100)
    assert "about 300 more evaluation groups or 3 more seeds" in judge(row)[1][0]


def test_a_failure_is_not_mixed_with_what_is_undecided() -> None:
    row: Row = replace(RIGHT, delta_ci95=[-1.1, 0.3], evidence={"int8_gemm_share": 0.5})
    assert judge(row) == ("fail", ["only 50% of the matrix products run in INT8"])


def test_a_baseline_without_thresholds_passes() -> None:
    assert judge(BASELINE) == ("pass", [])


def test_a_model_that_has_learned_nothing_fails_and_so_does_what_is_compared_with_it() -> None:
    found = {"verdict": "fail", "reason": "answers 'bad' to each of the 64 examples"}
    assert judge(replace(RIGHT, degenerate={"model": found})) == (
        "fail",
        ["the model answers 'bad' to each of the 64 examples"],
    )
    verdict, reasons = judge(replace(RIGHT, degenerate={"baseline": found}))
    assert verdict == "fail"
    assert reasons == ["the FP32 baseline answers 'bad' to each of the 64 examples. The delta to it says nothing"]
    few = {"verdict": "undecided", "reason": "is right on 100.0 % of the 4 examples"}
    assert judge(replace(RIGHT, degenerate={"model": few}))[0] == "undecided"


def test_what_was_found_of_several_seeds_is_the_worst() -> None:
    few, nothing = ({"verdict": verdict, "reason": verdict} for verdict in ("undecided", "fail"))
    rows = [replace(RIGHT, degenerate={"model": few}), replace(RIGHT, degenerate={"model": nothing, "baseline": few}), RIGHT]
    assert doubts.worst(rows) == {"model": nothing, "baseline": few}
    assert doubts.worst([RIGHT, RIGHT]) == {}


def test_a_baseline_that_is_served_otherwise_proves_nothing() -> None:
    """Once a server gave other vectors for a part of a batch: the INT8 rows beside it seemed four points better."""
    rungs = {"relative_mean": 0.013, "relative_largest": 5.2, "flips": 79}
    found = doubts.of_engines({"ladder": {"server": rungs}}, {"ladder": {"server": rungs}})
    assert set(found) == {"baseline"}
    verdict, reasons = judge(replace(RIGHT, degenerate=found))
    said = "the FP32 baseline is served with other answers than its engine gives; 79 predictions flip"
    assert verdict == "fail" and reasons == [f"{said}. The delta to it says nothing"]
    same = {**rungs, "relative_mean": 0.0, "relative_largest": 0.0}
    assert doubts.of_engines({}, {"ladder": {"server": same}}) == {}


def test_results_of_an_older_optkit_say_nothing_of_it() -> None:
    assert doubts.of_engines({"scores": {}}, {"scores": {}}) == {}
    assert doubts.of_engines({doubts.KEY: None}, None) == {}
    assert doubts.of_engines({doubts.KEY: None}, {doubts.KEY: {"verdict": "fail"}}) == {"baseline": {"verdict": "fail"}}
