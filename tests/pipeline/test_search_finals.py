"""What finalists are judged by, and what a search says of them beside its table."""

from dataclasses import replace

from optkit.pipeline.search_finals import Final, any_holds
from optkit.pipeline.search_front import Delta
from optkit.pipeline.search_goal import Goal
from optkit.report.search_report import _noted
from tests.evaluation.test_gate import RIGHT

SLOWER = "the INT8 engine is slower than the 16-bit one (0.80x at batch 1)"


def final(verdict: str, reasons: list[str], remarks: list[str]) -> Final:
    row = replace(RIGHT, precision="int8", verdict=verdict, reasons=reasons, remarks=remarks)
    return Final("m", "found_1", None, row, Delta(0.0, 0.0, 0.0), Delta(0.0, 0.0, 0.0), 0.5, "pass")


def test_the_gates_reasons_and_remarks_are_said_once() -> None:
    found = final("fail", ["delta -3.00 [-4.00, -2.00] is below -1 points", SLOWER], ["another was faster"] * 2)
    assert _noted([found]) == [f"found_1 int8: its gate fails, {SLOWER}", "found_1 int8: another was faster"]
    assert found.verdict(found.chosen, 1.0) == "fail"


def test_the_loss_is_judged_against_the_reference_and_not_by_the_gate() -> None:
    found = final(
        "fail", ["delta -3.00 [-4.00, -2.00] is below -1 points", "p99 7.0 ms [6.0, 8.0] at batch 1 is above 1 ms"], []
    )
    assert not _noted([found]) and found.verdict(found.chosen, 1.0) == "pass"
    assert not _noted([final("undecided", [SLOWER], [])])


def test_whether_a_recipe_holds_the_budget() -> None:
    goal, beyond = Goal("size", 1.0, None), Delta(-3.0, -4.0, -2.0)
    baseline = final("pass", [], [])
    lost, open_, slower = (replace(baseline, file="found_1.py", chosen=own) for own in (beyond, Delta(-1, -3, 1), beyond))
    assert not any_holds([baseline, lost, slower], goal), "that the baseline holds it says nothing"
    assert any_holds([baseline, lost, open_], goal)
    assert not any_holds([replace(final("fail", [SLOWER], []), file="found_1.py")], goal)
