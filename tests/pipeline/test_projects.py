"""Projects: results on other data or from another model lie apart, and are found by name, by source, or as the only one."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from optkit.core import step_cache
from optkit.core.errors import InputError
from optkit.pipeline import projects
from optkit.pipeline.projects import Project, Source

TASK = "classification"
CONTENTS = {"data": "d", "model": "m"}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the checkpoints, in the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "checkpoints"


def never() -> dict[str, Any]:
    raise AssertionError("contents were asked for")


def run(
    root: Path, data: str | None = None, model: str | None = None, name: str | None = None, of: Mapping[str, Any] = CONTENTS
) -> Project:
    """What a run leaves: a finished checkpoint, and what it was run on."""
    for place in (data, model):
        if place is not None:
            Path(place).mkdir(parents=True, exist_ok=True)
    given = Source.of(data, model)
    project = projects.to_run(root, TASK, name, given, lambda: of)
    step_cache.step(project.recipe("ptq_int8", 0), of, lambda folder: (folder / "a").write_text("a"), keep=True)
    project.remember(given)
    return project


def names(root: Path) -> list[str]:
    return [project.name for project in projects.existing(root, TASK)]


def found(root: Path, data: str | None = None, model: str | None = None, name: str | None = None) -> str:
    return projects.find(root, TASK, name, Source.of(data, model)).name


@pytest.mark.parametrize(
    ("data", "model", "name"),
    [
        ("banking77", "models/minilm", "banking77-minilm"),
        ("./banking77/", None, "banking77"),
        (None, "sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        ("hub:PolyAI/banking77/en@main#train=a,dev=b", "m", "PolyAI-banking77-en-main-m"),
        ("Kritiken 2024 (neu)", "m..x", "Kritiken-2024-neu-m.x"),
        ("データ", "/", "data-model"),
        (".hidden", "-x-", "hidden-x"),
        ("a" * 200, "b" * 200, "a" * 60 + "-" + "b" * 60),
        (TASK, None, f"{TASK}-data"),
        (None, None, TASK),
    ],
)
def test_a_project_is_called_after_data_and_model(data: str | None, model: str | None, name: str, root: Path) -> None:
    project = projects.to_run(root, TASK, None, Source.of(data, model), never)
    assert project.name == name
    assert project.folder == (root / TASK if name == TASK else root / TASK / name)
    assert project.model("ptq_int8") == f"{name}_ptq_int8"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "a..b", ".a", "-a", "a b", "ü", "a" * 101, "a\n"])
def test_a_name_that_no_folder_and_no_model_may_have(name: str, root: Path) -> None:
    with pytest.raises(InputError, match=r"--name .*: expected up to 100 letters, digits"):
        projects.to_run(root, TASK, name, Source(), never)
    with pytest.raises(InputError, match="--name"):
        projects.find(root, TASK, name)


def test_data_and_models_of_the_same_names_do_not_share_a_folder(root: Path) -> None:
    first, second = run(root, "a/reviews", "m/mini"), run(root, "b/reviews", "m/mini")
    third = run(root, "b/reviews", "n/mini")
    assert first.name == "reviews-mini"
    assert len({first.folder, second.folder, third.folder}) == 3
    assert all(project.name.startswith("reviews-mini-") for project in (second, third))
    for project, data, model in ((first, "a", "m"), (second, "b", "m"), (third, "b", "n")):
        assert run(root, f"{data}/reviews", f"{model}/mini") == project
        assert found(root, f"{data}/reviews", f"{model}/mini") == project.name
        assert found(root, f"./{data}/reviews/", os.path.abspath(f"{model}/mini")) == project.name


def test_data_that_have_moved_go_on_in_their_project(root: Path) -> None:
    project = run(root, "a/reviews")
    os.rename("a", "elsewhere")
    assert run(root, "elsewhere/reviews") == project
    assert names(root) == ["reviews"]


def test_a_name_holds_whatever_is_run_under_it(root: Path) -> None:
    project = run(root, "a", "m", name="mine")
    assert run(root, "b", "m", name="mine") == project
    assert project.sources == [Source.of("a", "m"), Source.of("b", "m")]
    assert found(root, "a") == found(root, "b") == found(root) == "mine"
    assert run(root, "a", "m").name == "a-m", "without a name it is called after its data again"


def test_the_only_project_needs_no_name_and_several_are_refused_with_all(root: Path) -> None:
    assert found(root) == TASK and names(root) == []
    run(root, "reviews", "mini")
    assert found(root) == "reviews-mini"
    run(root)
    run(root, "tweets", "mini")
    assert names(root) == [TASK, "reviews-mini", "tweets-mini"]
    with pytest.raises(InputError, match=r"has the projects classification, reviews-mini, tweets-mini; name one .* --name"):
        found(root)
    assert found(root, "tweets") == "tweets-mini"
    with pytest.raises(InputError, match="has the projects reviews-mini, tweets-mini; name one"):
        found(root, model="mini")
    with pytest.raises(InputError, match=r"no results on --data .*/other in .*; it has classification, reviews-mini, twe"):
        found(root, "other")
    assert found(root, name=TASK) == TASK and found(root, name="tweets-mini") == "tweets-mini"


def test_what_lies_beside_the_recipes_is_no_project(root: Path) -> None:
    project = run(root, "reviews")
    for data in ("1", "2"):
        run(root, "reviews", of={**CONTENTS, "data": data})  # the first ones go to .superseded/
    plain = run(root)
    for folder in (project.folder, plain.folder):
        (folder / ".teachers" / "big-0123" / "seed-0").mkdir(parents=True)
        (folder / ".teachers" / "big-0123" / "seed-0" / step_cache.RECORD).write_text("{}")
    assert list(project.folder.glob("ptq_int8/.superseded/*")) and names(root) == [TASK, "reviews"]


def test_a_project_may_be_called_like_a_recipe(root: Path) -> None:
    run(root)
    project = run(root, "x", name="ptq_int8")
    assert names(root) == [TASK, "ptq_int8"]
    assert project.recipe("ptq_int8", 0) == root / TASK / "ptq_int8" / "ptq_int8" / "seed-0"


def test_the_layout_of_0_1_goes_on_with_its_own_data_and_with_no_others(root: Path) -> None:
    plain = Project(root, TASK, TASK)
    contents = {"data": "d", "model": {"model.safetensors": "1"}}
    step_cache.step(plain.recipe("baseline_fp32", 0), contents, lambda folder: None)
    assert plain.sources is None and found(root, "whatever") == TASK, "nobody knows what it was run on"
    other = run(root, "reviews", "mini", of={**contents, "data": "e"})
    assert other.name == "reviews-mini"
    assert run(root, "films", "mini", of=contents) == plain
    assert found(root, "films") == TASK and found(root, "reviews") == "reviews-mini"
    changed = projects.to_run(root, TASK, None, Source.of("films", "mini"), never)
    assert changed == plain, "from then on by its source, also where the data have changed"


def test_going_on_finds_the_only_project_of_a_source_under_another_name(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def going_on(name: str | None = None) -> str:
        return projects.to_go_on(root, TASK, name, Source.of("reviews", "mini"), never).name

    assert going_on() == "reviews-mini"
    run(root, "reviews", "mini", name="mine")
    assert going_on() == "mine" and not caplog.messages
    assert going_on("other") == "other" and caplog.messages == ["project 'other' begins here: so far there are mine"]
    run(root, "reviews", "mini", name="yours")
    with pytest.raises(InputError, match="has the projects mine, yours"):
        going_on()
    run(root, "reviews", "mini")
    assert going_on() == "reviews-mini"


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"sources": 3}', '{"sources": [[1, 2, 3]]}'])
def test_a_broken_record_of_a_project_is_named(content: str, root: Path) -> None:
    run(root, "reviews")
    (root / TASK / "reviews" / projects.FILE).write_text(content)
    with pytest.raises(InputError, match=r"reviews/project\.json: .*delete it"):
        found(root, "reviews")


def test_what_no_path_can_be_is_no_folder_and_no_crash() -> None:
    for name in ("x" * 300, "nul\0nul"):
        assert Source.of(None, name).model == name
        assert Source(data=f"/{name}").is_gone
