"""The loss by stage, against values computed by hand."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from optkit.core import step_cache
from optkit.evaluation.bootstrap import paired_bootstrap
from optkit.pipeline.loss_by_stage import loss_by_stage


def write(
    folder: Path, stages: dict[str, list[float]], served: dict[str, list[float]], groups: list[int] | None = None
) -> Path:
    """A recipe's folder with example scores after each stage, and through the server, and perhaps groups."""
    known = {"groups.npz": {"outcomes": groups}} if groups else {}
    for step, files in ((folder, {"stages.npz": stages}), (folder / "served", {"scores.npz": served, **known})):
        step_cache.step(step, {"step": step.name}, partial(_save, files))
    return folder


def _save(files: dict[str, dict[str, list]], folder: Path) -> None:
    for name, scores in files.items():
        np.savez(folder / name, **{own: np.array(values) for own, values in scores.items()})


def test_each_step_is_against_the_one_before_it(tmp_path: Path) -> None:
    stages = {
        "baseline_fp32": [100.0, 100.0, 100.0, 100.0],
        "distill": [100.0, 100.0, 0.0, 100.0],
        "sparsify": [100.0, 0.0, 0.0, 100.0],
        "quantize": [100.0, 100.0, 0.0, 100.0],
    }
    served = {"int8": [100.0, 0.0, 0.0, 0.0], "fp32": [100.0] * 4}
    folder = write(tmp_path / "seed-0", stages, served)
    steps = loss_by_stage([folder], "int8", "accuracy")
    assert [(step["stage"], step["delta"]) for step in steps] == [
        ("distill", -25.0),
        ("sparsify", -25.0),
        ("quantize", 25.0),
        ("engine", -50.0),
    ]
    low, high = paired_bootstrap(np.array(stages["distill"]), np.array(stages["baseline_fp32"]), "accuracy")
    assert steps[0]["ci95"] == [round(low, 4), round(high, 4)] and low < -25 < high
    assert sum(step["delta"] for step in steps) == 25.0 - 100.0
    assert loss_by_stage([folder], "fp32", "accuracy")[-1]["delta"] == 25.0


def test_a_step_that_changes_nothing_has_no_interval(tmp_path: Path) -> None:
    folder = write(tmp_path, {"baseline_fp32": [0.0, 100.0], "quantize": [0.0, 100.0]}, {"int8": [0.0, 100.0]})
    assert loss_by_stage([folder], "int8", "accuracy") == [
        {"stage": "quantize", "delta": 0.0, "ci95": [0.0, 0.0]},
        {"stage": "engine", "delta": 0.0, "ci95": [0.0, 0.0]},
    ]


def test_the_baseline_has_its_engine_alone(tmp_path: Path) -> None:
    folder = write(tmp_path, {"baseline_fp32": [0.0, 100.0]}, {"bf16": [0.0, 0.0]})
    assert [(step["stage"], step["delta"]) for step in loss_by_stage([folder], "bf16", "accuracy")] == [("engine", -50.0)]


def test_groups_are_drawn(tmp_path: Path) -> None:
    scores = {"baseline_fp32": [100.0] * 8, "quantize": [100.0] * 4 + [0.0] * 4}
    alone = write(tmp_path / "alone" / "seed-0", scores, {"int8": [100.0] * 8})
    folder = write(tmp_path / "seed-0", scores, {"int8": [100.0] * 8}, [0] * 4 + [1] * 4)
    assert loss_by_stage([folder], "int8", "accuracy")[0]["ci95"] == [-100.0, 0.0]
    low, high = loss_by_stage([alone], "int8", "accuracy")[0]["ci95"]
    assert -100 < low < -50 < high < 0


def test_several_seeds_are_pooled(tmp_path: Path) -> None:
    first = write(
        tmp_path / "seed-0", {"baseline_fp32": [100.0] * 4, "sparsify": [100.0, 100.0, 100.0, 0.0]}, {"fp32": [100.0] * 4}
    )
    second = write(tmp_path / "seed-1", {"baseline_fp32": [100.0] * 4, "sparsify": [0.0] * 4}, {"fp32": [0.0] * 4})
    sparsify, engine = loss_by_stage([first, second], "fp32", "accuracy")
    assert sparsify["delta"] == pytest.approx((-25 - 100) / 2)
    assert engine["delta"] == pytest.approx((25 + 0) / 2)
    ours, theirs = np.array([[100.0, 100.0, 100.0, 0.0], [0.0] * 4]), np.full((2, 4), 100.0)
    assert sparsify["ci95"] == [round(bound, 4) for bound in paired_bootstrap(ours, theirs, "accuracy")]
    assert sparsify["ci95"][0] == -100.0, "the second seed twice"
