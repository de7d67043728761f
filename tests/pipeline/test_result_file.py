"""What is compared and published is what was run: a changed value is refused, an old result says that it is not sealed."""

import json
import logging
import shutil

import numpy as np
import pytest

from optkit.core import step_cache
from optkit.core.errors import InputError
from optkit.evaluation.results import Refusal
from optkit.pipeline import refusals, row_choice, rows
from optkit.pipeline.publish import publish
from tests.conftest import main_ends
from tests.registry import small


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """The command line's log handler writes to the standard error of the test it was made in."""
    monkeypatch.setattr(logging.getLogger("optkit"), "handlers", [])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Results of a baseline and of the recipe `tiny`, in two seeds."""
    root = tmp_path_factory.mktemp("made") / "checkpoints"
    for seed in (0, 1):
        small.result(root, small.BASELINE, seed=seed)
        small.result(root, "tiny", seed=seed, weights=1)
    return root


@pytest.fixture
def results(made, tmp_path):
    return shutil.copytree(made, tmp_path / "checkpoints")


@pytest.fixture
def tiny(results):
    return results / "classification" / "tiny" / "seed-0"


def test_a_changed_value_is_refused_and_named(results, tiny, tmp_path, capsys):
    path = tiny / "result.json"
    path.write_text(path.read_text().replace('"delta": -0.5', '"delta": -0.1'))
    at = ["--task", "classification", "--checkpoints", str(results)]
    for command in (["compare"], ["publish", "tiny", "--repository", str(tmp_path / "repository")]):
        main_ends([*command, *at], 2)
        said = capsys.readouterr().err
        assert f"{path}: SHA-256 is" in said and "Run the recipe again" in said
    assert not (tmp_path / "repository").exists()


def test_a_value_changed_where_another_recipe_is_published_is_refused_too(results, tmp_path):
    """All rows go into the provenance."""
    path = results / "classification" / small.BASELINE / "seed-0" / "result.json"
    path.write_text(path.read_text().replace('"value": 90.0', '"value": 80.0'))
    with pytest.raises(InputError, match=r"baseline_fp32/seed-0/result\.json: SHA-256 is"):
        publish("tiny", "classification", results, tmp_path / "repository")


def test_a_changed_refusal_is_refused(results, capsys):
    """It would leave the recipe's results out."""
    folder = results / "classification" / "deep"
    refusals.write(Refusal("deep", "classification", "accuracy", ["no such layer"]), [folder / "seed-0"])
    arguments = ["compare", "--task", "classification", "--checkpoints", str(results)]
    main_ends(arguments, 0)
    assert "no such layer" in capsys.readouterr().out
    path = folder / refusals.FILE
    path.write_text(path.read_text().replace("no such layer", "no such thing"))
    main_ends(arguments, 2)
    assert f"{path}: changed after it was written. Run the recipe again" in capsys.readouterr().err


def test_changed_scores_are_refused_where_seeds_are_pooled(results, tiny):
    np.savez(tiny / "served" / "scores.npz", fp32=np.full(8, 99.0))
    with pytest.raises(InputError, match=r"served/scores\.npz: SHA-256 is .* changed after it was written"):
        rows.read(results, "classification")


def test_what_a_step_depends_on_is_what_its_key_says(results, tiny, tmp_path):
    path = tiny / "record.json"
    path.write_text(path.read_text().replace("d" * 64, "e" * 64))
    with pytest.raises(InputError, match=r"tiny/seed-0/record\.json: depends_on is not what the key was made of"):
        publish("tiny", "classification", results, tmp_path / "repository")


def test_a_result_of_before_there_were_seals_is_read_and_says_so(results, tiny, caplog):
    path = tiny / "record.json"
    record = json.loads(path.read_text())
    del record["sealed"]
    path.write_text(json.dumps(record))
    assert len(row_choice.of_recipe(rows.read(results, "classification"), "tiny", "classification", 0)) == 1
    assert f"{tiny / 'result.json'}: not sealed" in caplog.text


def test_a_result_of_other_scores_is_left_out(results, tiny, caplog):
    """A run that was killed between scoring and writing its result."""
    depends_on = step_cache.read_record(tiny / "served")["depends_on"]
    kept = tiny.parent / "kept"
    shutil.copytree(tiny / "served", kept, ignore=shutil.ignore_patterns("record.json"))
    step_cache.step(
        tiny / "served", {**depends_on, "seconds": 9}, lambda made: shutil.copytree(kept, made, dirs_exist_ok=True)
    )
    with pytest.raises(InputError, match=r"'tiny' has no current result"):
        row_choice.of_recipe(rows.read(results, "classification"), "tiny", "classification", 0)
    assert "tiny/seed-0: left out, its baseline, its engines or its scores have changed since" in caplog.text
