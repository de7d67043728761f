"""A baseline that has learned nothing: told at once, failed with every recipe made from it, never published."""

import copy
import logging

import pytest
import torch

from optkit.core.errors import GateError
from optkit.models import loading
from optkit.pipeline import rows
from optkit.pipeline.publish import publish
from optkit.pipeline.run import run
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.search_goal import Goal
from optkit.pipeline.search_trials import Trials
from optkit.recipe.stage import BASELINE
from tests.pipeline.test_repository_builder import RECIPES

pytestmark = [pytest.mark.slow, pytest.mark.server]


@pytest.fixture(scope="module")
def constant_model(tmp_path_factory, tiny_config, tiny_tokenizer, tiny_task):
    """A folder with a fine-tuned model that answers `good` whatever it reads."""
    torch.manual_seed(0)
    loaded, folder = loading.new(copy.deepcopy(tiny_config), tiny_tokenizer, tiny_task), tmp_path_factory.mktemp("constant")
    loaded.model.classifier.bias.data = torch.tensor([0.0, 100.0])
    loaded.model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def test_it_is_told_at_once_and_fails_with_all_that_is_made_from_it(constant_model, tiny_task, tmp_path, caplog):
    spec = RunSpec(tiny_task, str(constant_model), 0, tmp_path / "checkpoints", RECIPES, ("onnxruntime",), seconds=0.05)
    said = "the model answers 'good' to each of the 64 examples, which is right for 50.0 % of them"
    found = {name: run(RECIPES[name], spec)[0] for name in RECIPES}
    early = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any(line.startswith(f"{BASELINE}: {said}") and "(the gate's verdict: fail)" in line for line in early)
    baseline = found.pop(BASELINE)
    assert baseline.verdict == "fail" and baseline.reasons[0].startswith(said) and len(baseline.reasons) == 1
    for row in found.values():
        assert row.verdict == "fail" and row.delta == 0
        assert [reason.partition(" answers")[0] for reason in row.reasons] == ["the model", "the FP32 baseline"]
    with pytest.raises(GateError, match="no recipe passed its gate"):
        publish("best", tiny_task.name, spec.root, tmp_path / "models")
    with pytest.raises(GateError, match="its gate says: fail\n  - the model answers 'good'"):
        publish(BASELINE, tiny_task.name, spec.root, tmp_path / "models")
    assert rows.read(spec.root, tiny_task.name)[0].degenerate == baseline.degenerate


def test_a_search_ends_with_it_before_anything_is_timed(constant_model, tiny_task, tmp_path):
    spec = RunSpec(tiny_task, str(constant_model), 0, tmp_path / "checkpoints", RECIPES, ("onnxruntime",))
    with pytest.raises(GateError, match="the baseline that trials are compared with answers 'good' to each of the 64"):
        Trials([spec], Goal("size", 0.5)).baselines()
    assert not (spec.folder(spec.baseline) / "engines").exists()
