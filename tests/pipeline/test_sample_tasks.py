"""The small sample tasks on their whole way: trained, quantised, gated, published, asked, and asked by the examples."""

import copy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from optkit import Distill, Quantize, Recipe
from optkit.core.errors import InputError
from optkit.evaluation.artifacts import STAGE_SCORES, read_scores
from optkit.evaluation.results import Row
from optkit.models import thresholds_file
from optkit.pipeline import ask
from optkit.pipeline.publish import publish
from optkit.pipeline.remote_validation import Target, validate
from optkit.pipeline.run import run
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.train import trained
from optkit.recipe.stage import BASELINE
from optkit.report.explain import explain
from optkit.serving import ensemble
from optkit.serving.server import Server
from optkit.tasks.outcomes import value
from optkit.tasks.registry import load
from optkit.tasks.regression import Regression
from optkit.tasks.served import TextSettings

pytestmark = [pytest.mark.server, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
PTQ = "ptq_int8"
RECIPES = {BASELINE: Recipe(name=BASELINE), PTQ: Recipe(name=PTQ, stages=[Quantize()], max_drop=10)}
STUDENT = Recipe(name="student", stages=[Distill(layers=2, representation_epochs=0.5, epochs=1, learning_rate=1e-3)])


class Case(NamedTuple):
    """What a sample task's INT8 model has to reach, and what is asked of it."""

    least: float
    """Least headline metric."""
    scores: set[str]
    texts: tuple[str, ...]
    shown: str
    """What stands in the answer in words."""
    printed: tuple[str, ...]
    """Begins of the columns that the example prints in its first line."""


PASSAGE = "The soup was bad. The room was very good."
CASES = {
    "multi_label": Case(75, {"micro_f1", "macro_f1", "lrap"}, ("The soup was good.",), "* food", ("The soup was", "food")),
    "regression": Case(80, {"spearman", "pearson", "mae"}, ("The soup was really bad.",), "-", ("The soup was", "-")),
    "qa": Case(90, {"f1", "exact_match", "no_answer_f1"}, ("Any praise?", PASSAGE), "good (score", ("good", "")),
}


class Served(NamedTuple):
    """A sample task whose recipes have run, on a server with its published INT8 model."""

    case: Case
    example: Path
    spec: RunSpec
    rows: dict[str, Row]
    model: str
    url: str


@pytest.fixture(scope="module", params=CASES)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder, task = tmp_path_factory.mktemp(request.param), load(f"sample_{request.param}")
    spec = RunSpec(task, None, 0, folder / "checkpoints", RECIPES, engines=("onnxruntime",), seconds=0.05)
    rows = {name: run(recipe, spec)[0] for name, recipe in RECIPES.items()}
    model = publish(PTQ, task.name, spec.root, folder / "models").parent.name
    example = ROOT / "examples" / f"{request.param}.py"
    with Server(folder / "models", folder / "logs", [model, ensemble.pipeline(model)]) as server:
        yield Served(CASES[request.param], example, spec, rows, model, server.url)


def test_int8_passes_its_gate(served: Served) -> None:
    row, baseline = served.rows[PTQ], served.rows[BASELINE]
    assert baseline.verdict == row.verdict == "pass" and row.value >= served.case.least
    assert served.case.scores <= row.scores.keys()
    assert set(row.rungs) == {"pytorch", "graph", "engine", "server"}
    assert row.delta_ci95[0] <= row.delta <= row.delta_ci95[1]


def test_rows_tell_how_answers_differ_where_there_are_choices(served: Served) -> None:
    row, baseline = served.rows[PTQ], served.rows[BASELINE]
    if isinstance(served.spec.task, Regression):
        assert row.kl is row.flips is row.nll_change is None
        return
    assert baseline.kl == baseline.flips == baseline.nll_change == 0.0
    assert 0 < row.kl_ci95[0] <= row.kl <= row.kl_ci95[1] and 0 <= row.flips < 20 and abs(row.nll_change) < 0.5


def test_a_student_learns_from_it(served: Served) -> None:
    scores = read_scores(trained(STUDENT, served.spec) / STAGE_SCORES)
    metric = served.spec.task.metric
    assert value(scores["distill"], metric) > 0.9 * value(scores[BASELINE], metric)


def test_thresholds_go_the_whole_way(served: Served) -> None:
    """Those of the checkpoint are what graph, engines and server decide by."""
    folder = served.spec.folder(RECIPES[PTQ])
    found = thresholds_file.read(folder)
    assert bool(found) == served.spec.task.fits_thresholds
    assert found == thresholds_file.read(folder / "graph") == thresholds_file.read(folder / "engines")
    assert TextSettings.read(folder / "served" / "text").more.get("thresholds", []) == list(found)


def test_its_worst_examples_are_explained(served: Served) -> None:
    said = explain(PTQ, served.spec.task.name, served.spec.root)
    assert "From PyTorch to the server" in said and "The examples that change most" in said


def test_it_is_asked_in_words(served: Served) -> None:
    assert ask.answer(served.model, served.case.texts, served.url).startswith(served.case.shown)


def test_the_example_asks_with_nvidias_client_alone(served: Served) -> None:
    command = [sys.executable, str(served.example), served.model, *served.case.texts, "--url", served.url]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    columns = done.stdout.splitlines()[0].split("\t")
    assert all(column.startswith(begin) for column, begin in zip(columns, served.case.printed, strict=False))
    assert "optkit" not in "".join(line for line in served.example.read_text().splitlines() if "import" in line)


def test_a_running_server_is_validated(served: Served) -> None:
    row = validate(PTQ, served.spec.task, served.spec.root, Target(served.url, served.model))
    assert row.verdict == "pass" and row.value == served.rows[PTQ].value
    assert (row.kl, row.flips, row.nll_change) == pytest.approx(
        tuple(getattr(served.rows[PTQ], name) for name in ("kl", "flips", "nll_change"))
    )


def test_other_right_answers_are_another_dev_split(served: Served) -> None:
    task, rows = copy.copy(served.spec.task), served.spec.task.examples("dev")
    task._examples = {**task._examples, "dev": rows.add_column("more", [0] * len(rows))}
    with pytest.raises(InputError, match="scored on another dev split than this one"):
        validate(PTQ, task, served.spec.root, Target(served.url, served.model))
