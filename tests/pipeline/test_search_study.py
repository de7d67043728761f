"""The course of a search in Optuna's journal: what comes first, what counts, and how it goes on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from transformers import BertConfig

from optkit import Quantize
from optkit.core.errors import GateError, OptkitError
from optkit.pipeline import search_study
from optkit.pipeline.search_front import Delta
from optkit.pipeline.search_goal import Goal
from optkit.pipeline.search_space import Space
from optkit.pipeline.search_study import Budget, Tried
from optkit.pipeline.search_trials import Outcome, Stopped

pytest.importorskip("optuna")
SPACE = Space(
    (("quantize",),),
    {"quantize.calibrator": ("max", "mse", "kl", "entropy"), "quantize.calibration_examples": tuple(range(1, 50))},
    ({"techniques": ("quantize",), "quantize.calibrator": "kl", "quantize.calibration_examples": 7},),
)
COSTS = {"max": (-2.0, 0.3), "mse": (-0.5, 0.4), "kl": (-0.1, 0.5)}


class Runner:
    """Runs no training: a recipe's outcome follows from its calibrator; what entropy has is an error."""

    goal = Goal("latency@1", 1.0)

    def __init__(self, ends_at: int | None = None, side_by_side: int = 1) -> None:
        self.side_by_side = side_by_side
        architecture = SimpleNamespace(model=SimpleNamespace(config=BertConfig()))
        self.specs = [SimpleNamespace(architecture=lambda: architecture)]
        self.ends_at, self.ran = ends_at, list[Any]()

    def run(self, trials: Any) -> list[Outcome | OptkitError]:
        return [self.outcome(stages[0]) for stages, _ in trials]

    def outcome(self, stage: Any) -> Outcome | OptkitError:
        if len(self.ran) == self.ends_at:
            raise KeyboardInterrupt
        self.ran.append(stage)
        if stage.calibrator == "entropy":
            return GateError("no engine agrees")
        points, cost = COSTS[stage.calibrator]
        return Outcome(Delta(points, points - 0.2, points + 0.2), cost, "int8", "onnxruntime")


def searched(journal: Path, trials: int, runner: Runner, sampler: str = "tpe") -> Any:
    study = search_study.open_study(journal, sampler, 0)
    search_study.search(study, runner, SPACE, ["a model"], Budget(trials), warm=sampler != "random")  # type: ignore[arg-type]
    return study


@pytest.mark.parametrize("sampler", search_study.SAMPLERS)
def test_it_goes_on_where_it_ended(sampler: str, tmp_path: Path) -> None:
    first, second = Runner(), Runner()
    study = searched(tmp_path / "journal", 6, first, sampler)
    before = search_study.finished(study)
    assert len(first.ran) == 6
    if sampler != "random":
        assert (first.ran[0].calibrator, first.ran[0].calibration_examples) == ("kl", 7), "the space's start comes first"
    study = searched(tmp_path / "journal", 10, second, sampler)
    assert len(second.ran) == 4 and search_study.finished(study)[: len(before)] == before
    assert not {repr(one) for one in second.ran} <= {repr(one) for one in first.ran}, "other draws than those before"
    lost = [one for one in (*first.ran, *second.ran) if one.calibrator == "entropy"]
    assert search_study.not_finished(study) == ["no engine agrees"] * len(lost)
    searched(tmp_path / "journal", 10, ended := Runner(), sampler)
    assert ended.ran == []


def test_it_ends_where_the_space_has_nothing_new(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study, runner = search_study.open_study(tmp_path / "journal", "random", 0), Runner()
    space = Space((("quantize",),), {"quantize.calibrator": ("kl", "entropy")})
    search_study.search(study, runner, space, ["a model"], Budget(seconds=600.0), warm=False)  # type: ignore[arg-type]
    assert len(search_study.finished(study)) == 1 and len(study.trials) < 60
    assert "brought no recipe that was not tried or refused before" in caplog.text


def test_a_trial_that_was_broken_off_comes_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "journal", 4, broken := Runner(ends_at=0))
    assert broken.ran == []
    searched(tmp_path / "journal", 4, runner := Runner())
    assert len(runner.ran) == 4 and (runner.ran[0].calibrator, runner.ran[0].calibration_examples) == ("kl", 7)


def test_trials_are_numbered_as_they_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Those broken off have a number in the journal, and come again under another."""
    caplog.set_level("INFO", "optkit.pipeline.search_study")
    for ends_at in (1, 0, 2):
        with pytest.raises(KeyboardInterrupt):
            searched(tmp_path / "journal", 8, Runner(ends_at, side_by_side=2))
    caplog.clear()
    done = search_study._done(searched(tmp_path / "journal", 8, runner := Runner(side_by_side=2)))
    titles = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert done == 8 and len(runner.ran) < 8
    assert dict.fromkeys(titles).keys() == {f"trial {number} of 8" for number in range(9 - len(runner.ran), 9)}


def test_the_same_recipe_is_not_run_twice(tmp_path: Path) -> None:
    space = Space((("quantize",),), {"quantize.calibrator": ("kl", "mse")})
    study, runner = search_study.open_study(tmp_path / "journal", "random", 0), Runner()
    search_study.search(study, runner, space, ["a model"], Budget(8), warm=False)  # type: ignore[arg-type]
    assert len(runner.ran) == 2 == len(search_study.finished(study))


def test_a_recipe_that_is_drawn_again_takes_no_place_of_another(tmp_path: Path) -> None:
    space = Space((("quantize",),), {"quantize.calibrator": ("kl", "mse", "entropy")})
    study, runner = search_study.open_study(tmp_path / "journal", "random", 0), Runner()
    search_study.search(study, runner, space, ["a model"], Budget(3), warm=False)  # type: ignore[arg-type]
    assert {one.calibrator for one in runner.ran} == {"kl", "mse", "entropy"} and len(study.trials) > 3


def test_a_hopeless_trial_is_ended_early_and_the_rest_goes_on(tmp_path: Path) -> None:
    class Stopping(Runner):
        def outcome(self, stage: Any) -> Outcome | OptkitError:
            return Stopped("ended after quantize: -9.00") if stage.calibrator == "kl" else super().outcome(stage)

    study = searched(tmp_path / "journal", 5, Stopping())
    assert "ended after quantize: -9.00" in search_study.not_finished(study)


def test_trials_side_by_side_are_drawn_together_and_no_more_than_are_asked_for(tmp_path: Path) -> None:
    class Counting(Runner):
        sizes: ClassVar[list[int]] = []

        def run(self, trials: Any) -> list[Outcome | OptkitError]:
            self.sizes.append(len(trials))
            return super().run(trials)

    study = searched(tmp_path / "journal", 8, runner := Counting(side_by_side=3))
    assert runner.sizes == [3, 3, 2] and len(runner.ran) == 8
    assert len(search_study.finished(study)) + len(search_study.not_finished(study)) == 8


def test_time_ends_a_search(tmp_path: Path) -> None:
    study = search_study.open_study(tmp_path / "journal", "tpe", 0)
    search_study.search(study, runner := Runner(), SPACE, ["a model"], Budget(seconds=0.0), warm=True)  # type: ignore[arg-type]
    assert runner.ran == [] and search_study.finished(study) == []


def test_finalists_by_hand() -> None:
    """The cheapest of the front within the budget comes first, then what may reach it, then the nearest."""
    deltas = {
        0.5: Delta(-0.1, -0.3, 0.1),
        0.4: Delta(-0.5, -0.9, -0.1),
        0.3: Delta(-1.2, -1.5, -0.9),
        0.2: Delta(-4, -5, -3),
    }
    stages = (Quantize(),)
    tried = [Tried(0, stages, Outcome(delta, cost, "int8", "")) for cost, delta in deltas.items()]
    beaten = Tried(0, stages, Outcome(Delta(-0.6, -0.8, -0.4), 0.45, "int8", ""))
    baseline = Tried(0, (), Outcome(Delta(0, 0, 0), 1.0, "fp32", ""))
    found = search_study.finalists([beaten, baseline, *tried], 1.0, 9)
    assert [one.outcome.cost for one in found] == [0.4, 0.5, 0.3, 0.2, 0.45], "what the front beats comes after it"
    assert search_study.finalists(tried, 1.0, 2) == found[:2]
    better = Tried(0, (), Outcome(Delta(0, 0, 0), 0.1, "bf16", ""))
    assert search_study.finalists([better, beaten], 1.0, 1) == [beaten], "a baseline takes no recipe's place"
    fast = Tried(0, stages, Outcome(Delta(-0.3, -1.1, 0.5), 0.2, "int8", ""))
    faster = Tried(0, stages, Outcome(Delta(-0.5, -1.3, 0.3), 0.1, "int8", ""))
    assert search_study.finalists([*tried[:2], fast, faster], 1.0, 2) == [faster, tried[0]], "the surest"
    assert search_study.finalists([*tried[:2], fast, faster], 1.0, 1) == [faster]
