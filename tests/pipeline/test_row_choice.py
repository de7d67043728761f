"""The best row, of rows that were measured in runs of their own."""

from dataclasses import replace

from optkit.pipeline import row_choice
from tests.report.test_table import INT8

EIGHT = replace(INT8, speedup={"1": 3.3, "8": 3.3}, speedup_vs_16bit={"1": 1.2, "8": 1.2}, verdict="pass")
SIXTEEN = replace(EIGHT, precision="bf16", speedup={"1": 3.4, "8": 3.4}, speedup_vs_16bit={"1": 1.0, "8": 1.0})


def test_eight_bits_that_beat_sixteen_in_turn_are_the_best_though_the_machine_was_slower_in_their_run() -> None:
    assert row_choice.best([SIXTEEN, EIGHT], INT8.task, 0) is EIGHT


def test_where_one_was_not_measured_beside_16_bits_all_go_by_fp32() -> None:
    alone = replace(EIGHT, speedup={"1": 3.0, "8": 3.5}, speedup_vs_16bit=None)
    assert row_choice.best([SIXTEEN, alone], INT8.task, 0) is SIXTEEN
    faster = replace(alone, speedup={"1": 3.0, "8": 4.0})  # 3.46 in the geometric mean
    assert row_choice.best([SIXTEEN, faster], INT8.task, 0) is faster


def test_what_did_not_pass_is_not_the_best() -> None:
    assert row_choice.best([SIXTEEN, replace(EIGHT, verdict="undecided")], INT8.task, 0) is SIXTEEN
