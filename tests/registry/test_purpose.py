"""A model is not replaced by one for another task, other labels or other data, unless somebody says why."""

import json
import shutil

import pytest

from optkit.core.errors import InputError
from optkit.pipeline import rows
from optkit.pipeline.publish import Options, publish
from optkit.registry import history, layout, verify
from optkit.registry.purpose import differences
from optkit.registry.rollback import rollback
from optkit.report import table
from tests.conftest import main_ends

from . import small

REPLACE = Options(replace=True, why="the old classes are no more")


def test_what_is_unknown_is_no_difference():
    known = {"task": "qa", "labels": ["a", "b"], "data": "0" * 64}
    assert differences(known, {}) == differences({}, known) == differences(known, dict(known)) == []
    assert differences(known, {**known, "labels": None}) == []
    others = {"task": "sst2", "labels": ["b", "a"], "data": "1" * 64}
    assert differences(others, known) == [
        "task 'qa', and this is for 'sst2'",
        "labels a, b, and this is for b, a",
        f"data {'0' * 12!r}, and this is for {'1' * 12!r}",
    ]
    many = {"labels": [str(number) for number in range(77)]}
    assert differences(many, known) == ["labels a, b, and this is for 0, 1, 2, 3, 4, … (77 in all)"]


def at_work(tmp_path, name, **changes):
    """Results of a project, each with weights of its own."""
    root = tmp_path / name
    small.result(root, small.BASELINE, project="mine", **changes)
    small.result(root, "tiny", project="mine", weights=ord(name), **changes)
    return root


@pytest.mark.server
def test_a_model_for_something_else_is_only_replaced_on_purpose(tmp_path, caplog):
    target = tmp_path / "repository"
    first, data, labels = (
        at_work(tmp_path, "a"),
        at_work(tmp_path, "b", data="e"),
        at_work(tmp_path, "c", labels=("x", "y", "z")),
    )
    version = publish("tiny", "classification", first, target)
    origin = layout.provenance(version)
    assert version.parent.name == origin["model"] == "mine_tiny"
    assert (origin["project"], origin["task"], origin["labels"]) == ("mine", "classification", list(small.LABELS))
    assert "for the task `classification`, project `mine`, as a fp32 engine" in (version / "README.md").read_text()
    for root, said in ((data, r"data 'd+', and this is for 'e+'"), (labels, "labels bad, good, neither, and this is for x")):
        with pytest.raises(InputError, match=rf"'mine_tiny': its live version 1 is for {said}.*--replace --why TEXT"):
            publish("tiny", "classification", root, target)
    assert layout.models(target) == {"mine_tiny": (1,)}
    version = publish("tiny", "classification", data, target, options=REPLACE)
    replaced = layout.provenance(version)["replaced"]
    assert (replaced["version"], replaced["why"]) == (1, REPLACE.why) and "data 'dddddddddddd'" in replaced["differences"][0]
    assert "**It replaced something else**: version 1 is for data 'd" in (version / "README.md").read_text()
    assert history.read(version.parent)[-1]["replaced"] == replaced["differences"]
    rollback(target, "mine_tiny")
    assert "mine_tiny: version 2 was live, which is for data 'eeeeeeeeeeee', and this is for 'ddddd" in caplog.text
    assert history.read(version.parent)[-1]["replaced"] and verify.verify(target) == []
    assert publish("tiny", "classification", first, target).name == "1", "what is live already replaces nothing"


@pytest.mark.server
def test_a_version_of_0_1_says_less_and_is_followed_by_newer_ones(tmp_path):
    """It states no labels; its task and data are compared."""
    target = tmp_path / "repository"
    version = publish("tiny", "classification", at_work(tmp_path, "a"), target)
    small.as_of_0_1(version.parent, "labels", "project", "replaced")
    with pytest.raises(InputError, match="is for data"):
        publish("tiny", "classification", at_work(tmp_path, "b", data="e"), target)
    newer = publish("tiny", "classification", at_work(tmp_path, "c", labels=("x", "y", "z")), target)
    assert newer.name == "2" and layout.provenance(newer)["replaced"] is None


@pytest.mark.server
def test_two_projects_of_a_task_are_compared_and_published_apart(checkpoints, tmp_path, capsys):
    root, target = shutil.copytree(checkpoints, tmp_path / "checkpoints"), tmp_path / "repository"
    for recipe, weights in ((small.BASELINE, 0), ("tiny", 8)):
        small.result(root, recipe, weights=weights, project="mine", data="e")
    at = ["--task", "classification", "--checkpoints", str(root)]
    main_ends(["compare", *at], 2)
    assert "has the projects classification, mine; name one of them with --name" in capsys.readouterr().err
    main_ends(["compare", *at, "--name", "mine", "--format", "json"], 0)
    found = json.loads(capsys.readouterr().out)
    assert {row["recipe"] for row in found} == {small.BASELINE, "tiny"} and {row["project"] for row in found} == {"mine"}
    main_ends(["compare", *at, "--name", "classification"], 0)
    assert capsys.readouterr().out.lstrip().startswith("classification: accuracy and speed")
    for form, said in (
        ("table", "mine (classification): accuracy"),
        ("html", "<h1>mine (classification): w"),
        ("csv", ",mine"),
    ):
        assert said in table.render(rows.read(root, "classification", "mine"), form)
    for name in ("mine", "classification"):
        main_ends(["publish", "tiny", *at, "--name", name, "--repository", str(target)], 0)
    assert layout.models(target) == {"classification_tiny": (1,), "mine_tiny": (1,)}
    assert layout.provenance(target / "mine_tiny" / "1")["data"] == "e" * 64
    main_ends(["explain", "tiny", *at, "--name", "nowhere"], 2)
    assert f"no results in {root / 'classification' / 'nowhere'}" in capsys.readouterr().err
