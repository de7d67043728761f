"""`docs/models.md` says what optkit does: before training for every family, and all the way for three kinds of them."""

from dataclasses import replace
from pathlib import Path

import pytest

from optkit.tasks import registry
from optkit.tasks.base import Task
from tests import models_table
from tests.models_table import ENGINES, RECIPES
from tests.tiny_families import FAMILIES, write_data


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return registry.load("classification", write_data(tmp_path_factory.mktemp("data")))


def test_the_table_has_every_family_and_technique() -> None:
    table = models_table.read()
    assert list(table) == list(FAMILIES)
    assert all(list(cells) == [*RECIPES, *ENGINES] for cells in table.values())
    assert models_table.render(table) == models_table.DOCUMENT.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_says_what_is_said_before_training(family: str, task: Task, tmp_path: Path) -> None:
    said = models_table.techniques(models_table.spec_of(tmp_path, family, task))
    written = models_table.read()[family]
    assert said == {title: written[title] for title in RECIPES}


@pytest.mark.server
@pytest.mark.parametrize("family", ["distilbert", "debertav3", "modernbert"])
def test_a_family_goes_all_the_way(family: str, task: Task, tmp_path: Path) -> None:
    """Trained, made smaller, sparse and INT8, scored through a server, published, and asked a question."""
    spec = replace(models_table.spec_of(tmp_path, family, task), engines=("onnxruntime",))
    models_table.run_publish_ask(RECIPES["fewer layers + 2:4 + QAT"], spec, tmp_path / "repository")
