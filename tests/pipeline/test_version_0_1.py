"""What version 0.1 left on disk is still read: checkpoints, results and a repository of published models, text included.

`tests/data/version_0_1.tar.xz` was written by 0.1.0 on a tiny task: three recipes, two of them published.
"""

import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from optkit.cli.app import main
from optkit.compression import checkpoint
from optkit.core import step_cache
from optkit.core.json_door import read_json
from optkit.evaluation.artifacts import read_sample
from optkit.models.loading import inference
from optkit.pipeline import rows
from optkit.pipeline.ask import answer
from optkit.pipeline.publish import publish
from optkit.registry import layout, smoke_test
from optkit.report.explain import explain
from optkit.report.table import FORMATS, render
from optkit.serving.client import Client
from optkit.serving.server import Server
from optkit.tasks.registry import load
from tests.conftest import main_ends

ARCHIVE = Path(__file__).parents[1] / "data" / "version_0_1.tar.xz"
STAGES = {"baseline_fp32": [], "ptq_int8": ["quantize"], "distill_1l_sparse_qat": ["distill", "sparsify", "quantize"]}
PUBLISHED = ("classification_baseline_fp32", "classification_ptq_int8")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `checkpoints/`, `data/` and `model_repository/`."""
    folder = tmp_path_factory.mktemp("version_0_1")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize("recipe", STAGES)
def test_a_checkpoint_answers_as_it_was_served(recipe: str, old: Path) -> None:
    folder = old / "checkpoints" / "classification" / recipe / "seed-0"
    task = load("classification", old / "data")
    loaded = checkpoint.load(folder, task)
    assert [stage.technique for stage in checkpoint.stages_of(folder)] == STAGES[recipe]
    feed, served = read_sample(folder / "served" / "sample.npz")
    (logits,) = served.values()
    # INT8 rounds now and then otherwise in an engine than in PyTorch
    assert abs(inference(loaded.model, task)(feed) - logits).mean() < (0.05 if STAGES[recipe] else 1e-4)


def test_results_are_compared_and_explained(old: Path) -> None:
    found = rows.read(old / "checkpoints", "classification")
    assert {row.recipe for row in found} == set(STAGES)
    assert {row.sparsity for row in found if row.recipe == "distill_1l_sparse_qat"} == {"2:4"}
    for form in FORMATS:
        assert "distill_1l_sparse_qat" in render(found, form)
    assert "ptq_int8 int8 (onnxruntime)" in explain("ptq_int8", "classification", old / "checkpoints")


def test_a_repository_is_whole_and_listed(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repository = str(old / "model_repository")
    main_ends(["verify", "--repository", repository], 0)
    main_ends(["list", "--repository", repository], 0)
    out = capsys.readouterr().out
    assert all(name in out for name in PUBLISHED)


@pytest.mark.server
def test_a_published_model_is_served_as_it_was(old: Path, tmp_path: Path) -> None:
    repository = old / "model_repository"
    with Server(repository, tmp_path, PUBLISHED) as server:
        for name in PUBLISHED:
            probes = smoke_test.read(repository / name / "1" / layout.PROBE)
            with closing(Client(server.url, name)) as client:
                assert set(smoke_test.check(client, probes, name)) == set(probes)


@pytest.mark.server
def test_a_published_model_is_asked_in_words(old: Path) -> None:
    said = answer("classification_ptq_int8", ["this lovely film"], "", old / "model_repository")
    assert [line.split()[0] for line in said.splitlines()] == ["good", "bad"]


@pytest.mark.server
def test_an_old_result_is_published(old: Path, tmp_path: Path) -> None:
    """What is live already is not published again; elsewhere it becomes the first version."""
    args = ("ptq_int8", "classification", old / "checkpoints")
    assert publish(*args, old / "model_repository") == old / "model_repository" / PUBLISHED[1] / "1"
    version = publish(*args, tmp_path / "elsewhere")
    assert layout.provenance(version)["recipe"]["name"] == "ptq_int8"


def test_finished_steps_of_0_1_are_made_anew_and_not_deleted(old: Path) -> None:
    """They were computed by other code: the keys say so, and what took long to make is set aside."""
    folder = old / "checkpoints" / "classification" / "baseline_fp32" / "seed-0"
    depends_on = step_cache.read_record(folder)["depends_on"]
    assert depends_on["code"] and read_json(folder / "versions.json")["optkit"] == "0.1.0"
    assert not step_cache.is_finished(folder, step_cache.key_of({**depends_on, "code": "of today"}))


def test_a_script_of_0_1_is_told_the_line_to_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "mine.py"
    script.write_text('from optkit import Recipe\n\nrecipe = Recipe(name="mine")\nrecipe.main()\n')
    with pytest.raises(SystemExit) as end:
        main(["run", str(script), "--task", "sample"])
    assert end.value.code == 2 and "Write: import optkit; optkit.main(recipe)" in capsys.readouterr().err
