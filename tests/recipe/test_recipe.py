"""Recipes: data that cannot be changed, whose mistakes are reported together."""

import json
import math
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

import optkit
from optkit import Distill, Quantize, Recipe, Sparsify, Training
from optkit.core.settings import RecipeError
from optkit.recipe.stage import BASELINE
from optkit.recipe.teacher_names import is_folder


def test_all_mistakes_are_reported_together() -> None:
    with pytest.raises(RecipeError) as error:
        Recipe(name="Bad Name", stages=[Quantize(epochs=-1)], training=Training(batch_size=0))
    assert str(error.value).splitlines() == [
        "recipe 'Bad Name' has 3 mistakes:",
        "  - Quantize.epochs is -1: input should be greater than or equal to 0",
        "  - Training.batch_size is 0: input should be greater than or equal to 1",
        "  - Recipe.name is 'Bad Name': string should match pattern '^[a-z0-9][a-z0-9_]*$'",
    ]
    assert error.value.exit_status == 2


def test_several_mistakes_of_one_part() -> None:
    with pytest.raises(RecipeError, match="has 2 mistakes:") as error:
        Recipe(name="one", stages=[Quantize(calibrator="maximum", temperature=0)])
    text = str(error.value)
    assert "Quantize.calibrator is 'maximum': input should be 'max', 'percentile', 'mse', 'entropy' or 'kl'" in text
    assert "Quantize.temperature is 0: input should be greater than 0" in text


@pytest.mark.parametrize("given", [{"stages": [{"technique": "quantize", "epohcs": 1}]}, {"training": {"batch_sise": 8}}])
def test_mistakes_of_parts_given_as_dictionaries_are_reported_too(given: dict) -> None:
    with pytest.raises(RecipeError, match=r"has no setting '(epohcs|batch_sise)'"):
        Recipe(name="one", **given)


def test_a_dictionary_of_no_technique_is_a_mistake_beside_the_others() -> None:
    with pytest.raises(RecipeError) as error:
        Recipe(name="one", stages=[{"technique": "quantise"}], training={"batch_sise": 8})
    text = str(error.value)
    assert "Recipe.stages.0 is {'technique': 'quantise'}: no such technique is imported; expected one of " in text
    assert "has no setting 'batch_sise'" in text


def test_a_recipe_has_a_name() -> None:
    with pytest.raises(RecipeError, match="Recipe needs name"):
        Recipe()


def test_who_learns_from_labels_alone_has_no_teacher() -> None:
    assert Sparsify(label_weight=0.9).teachers == Sparsify(label_weight=1, representation_epochs=1).teachers == (BASELINE,)
    assert Sparsify(label_weight=1).teachers == ()


def test_a_learning_rate_is_tried_once() -> None:
    with pytest.raises(RecipeError, match=r"Sparsify\.learning_rates are 0\.0001, 0\.0001: expected each once"):
        Recipe(name="one", stages=[Sparsify(learning_rates=[1e-4, 1e-4])])


@pytest.mark.parametrize("after", [[], [Sparsify(epochs=0), Quantize()]])
def test_a_student_is_trained_by_some_stage(after: list) -> None:
    made = Distill(layers=4, epochs=0, representation_epochs=0)
    with pytest.raises(RecipeError, match="Distill trains nothing and no later stage does: expected epochs or steps in one"):
        Recipe(name="one", stages=[made, *after])
    assert Recipe(name="one", stages=[made, Sparsify(epochs=1), *after[1:]]).teachers == ("baseline_fp32",)


def test_only_the_baseline_has_its_name() -> None:
    with pytest.raises(RecipeError, match="baseline_fp32"):
        Recipe(name="baseline_fp32", stages=[Quantize()])


@pytest.mark.parametrize(("part", "field"), [("stages", "epochs"), ("training", "batch_size"), (None, "name")])
def test_a_recipe_is_frozen(part: str | None, field: str) -> None:
    recipe = Recipe(name="one", stages=[Quantize()])
    owner = {"stages": recipe.stages[0], "training": recipe.training, None: recipe}[part]
    with pytest.raises(ValidationError, match="Instance is frozen"):
        setattr(owner, field, 3)


def test_the_digest_is_the_same_in_every_process() -> None:
    recipe = Recipe(name="one", stages=[Quantize(gelu_clip=10)], training=Training(epochs=3))
    code = f"from optkit import Recipe; print(Recipe(**{recipe.resolved()!r}).digest())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == recipe.digest()


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "two"},
        {"stages": []},
        {"stages": [Quantize(gelu_clip=10, calibrator="mse")]},
        {"stages": [Quantize(gelu_clip=6)]},
        {"training": Training(epochs=4)},
        {"training": Training(epochs=3, precision="fp32")},
    ],
)
def test_the_digest_changes_with_what_shapes_the_result(changed: dict) -> None:
    given = {"name": "one", "stages": [Quantize(gelu_clip=10)], "training": Training(epochs=3)}
    assert Recipe(**given).digest() != Recipe(**{**given, **changed}).digest()


def test_the_digest_leaves_out_what_does_not_shape_the_result() -> None:
    served = {"max_drop": 0.5, "workload": [(1, 32)]}
    assert Recipe(name="one").digest() == Recipe(name="one", description="of one", **served).digest()


@pytest.mark.parametrize("workload", [[(0, 32)], [(1,)], "1x32", [1, 32], [(True, 32)], [("1", "32")], [(1.0, 32)]])
def test_a_workload_is_batches_of_rows_and_tokens(workload: Any) -> None:
    with pytest.raises(RecipeError, match="workload"):
        Recipe(name="one", workload=workload)
    assert Recipe(name="one", workload=[[1, 32], (8, 128)]).workload == ((1, 32), (8, 128))


@pytest.mark.parametrize("threshold", [{}, {1: 0}, {"1": "fast"}, {(1,): 5.0}, {1: True}, {1: math.inf}, -1, "fast"])
@pytest.mark.parametrize("name", ["max_p99_ms", "min_speedup"])
def test_a_threshold_of_speed_is_one_number_or_one_by_batch_size(name: str, threshold: Any) -> None:
    with pytest.raises(RecipeError, match=rf"1 mistake:\n.*Recipe.{name} is .*expected one number above 0 for every batch"):
        Recipe(name="one", **{name: threshold})
    recipe = Recipe(name="one", **{name: {1: 5, "8": 20.0}})
    assert getattr(recipe, name) == {"1": 5.0, "8": 20.0}
    assert Recipe(**json.loads(recipe.model_dump_json())) == recipe


def test_stages_whose_model_knows_nothing_yet_are_half_a_recipe() -> None:
    made, pruned = Distill(layers=4, epochs=0, representation_epochs=0), Sparsify(epochs=0, representation_epochs=0)
    whole = Recipe(name="joint", stages=[made, pruned, Quantize(epochs=1)])
    halves = [whole.model_copy(update={"stages": whole.stages[:count]}) for count in range(4)]
    assert [half.is_half for half in halves] == [False, True, True, False]


def test_a_workload_fits_in_memory() -> None:
    with pytest.raises(RecipeError, match="expected batches of up to 262,144 tokens; found 20000x128, 1x1000000"):
        Recipe(name="one", workload=[(20000, 128), (8, 128), (1, 1000000)])
    assert Recipe(name="one", workload=[(2048, 128)]).workload


def test_teachers_are_those_that_training_needs() -> None:
    assert Recipe(name="ptq", stages=[Quantize()]).teachers == ()
    assert Recipe(name="qat", stages=[Quantize(epochs=1, teacher="big")]).teachers == ("big",)
    assert Recipe(name="qat", stages=[Quantize(epochs=1)]).teachers == ("baseline_fp32",)
    assert Recipe(name="qat", stages=[Quantize(epochs=1, teacher=None)]).teachers == ()
    assert Recipe(name="sparse", stages=[Sparsify(epochs=0)]).teachers == ()
    assert Recipe(name="sparse", stages=[Sparsify(epochs=0, representation_epochs=1, teacher="big")]).teachers == ("big",)


def test_each_teacher_is_named_once_and_folders_are_told_apart() -> None:
    stages = [Distill(teacher="./big"), Sparsify(), Quantize(epochs=1)]
    assert Recipe(name="all", stages=stages).teachers == ("./big", "baseline_fp32")
    assert [is_folder(name) for name in ("./big", "/models/big", "models/big", "baseline_fp32")] == [True] * 3 + [False]


@pytest.mark.parametrize(
    ("stages", "is_baseline", "is_sparse", "is_quantised"),
    [
        ([], True, False, False),
        ([Distill(layers=4)], False, False, False),
        ([Sparsify()], False, True, False),
        ([Quantize()], False, False, True),
        ([Distill(), Sparsify(), Quantize()], False, True, True),
    ],
)
def test_stages_say_what_a_recipe_is(stages: list, is_baseline: bool, is_sparse: bool, is_quantised: bool) -> None:
    recipe = Recipe(name="one", stages=stages)
    assert (recipe.is_baseline, recipe.is_sparse, recipe.is_quantised) == (is_baseline, is_sparse, is_quantised)
    assert recipe.has("distill") is any(isinstance(stage, Distill) for stage in stages)


UNDONE = "since each technique would undo what a later one in that order has fixed"


@pytest.mark.parametrize(
    ("stages", "found", "expected"),
    [
        ([Quantize(), Sparsify()], "quantize → sparsify", "sparsify → quantize"),
        ([Sparsify(), Distill()], "sparsify → distill", "distill → sparsify"),
        ([Quantize(), Distill()], "quantize → distill", "distill → quantize"),
        ([Quantize(), Sparsify(), Distill()], "quantize → sparsify → distill", "distill → sparsify → quantize"),
    ],
)
def test_stages_in_another_order_are_refused(stages: list, found: str, expected: str) -> None:
    with pytest.raises(RecipeError) as error:
        Recipe(name="one", stages=stages)
    lines = ["recipe 'one' has 1 mistake:", f"  - Recipe.stages go {found}: expected {expected}, {UNDONE}"]
    assert str(error.value).splitlines() == lines


@pytest.mark.parametrize("stages", [[Distill(), Quantize()], [Sparsify(), Quantize()], [Distill(), Sparsify()]])
def test_a_stage_may_be_left_out(stages: list) -> None:
    assert Recipe(name="one", stages=stages).stages == tuple(stages)


def test_a_stage_comes_once() -> None:
    with pytest.raises(RecipeError) as error:
        Recipe(name="one", stages=[Quantize(), Quantize(calibrator="mse")])
    assert str(error.value).splitlines() == [
        "recipe 'one' has 1 mistake:",
        "  - Recipe.stages has 2 stages 'quantize': expected each technique once",
    ]


def test_the_order_is_said_beside_the_mistakes_of_the_stages() -> None:
    with pytest.raises(RecipeError) as error:
        Recipe(name="one", stages=[Quantize(epochs=-1), Distill(layers=0)])
    text = str(error.value)
    assert text.startswith("recipe 'one' has 3 mistakes:")
    assert "Quantize.epochs is -1" in text and "Distill.layers is 0" in text and "go quantize → distill" in text


def test_a_recipe_script_runs_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr("optkit.cli.app.main", asked.append)
    monkeypatch.setattr("sys.argv", ["recipes/one.py", "--task", "sample"])
    optkit.main(Recipe(name="one"))
    assert asked == [["run", "recipes/one.py", "--task", "sample"]]


def test_a_script_of_version_0_1_is_told_the_line_to_write(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        Recipe(name="one").main()
    assert end.value.code == 2
    assert "recipe.main() is no more. Write: import optkit; optkit.main(recipe)" in capsys.readouterr().err


def test_training_settings_in_place_of_a_recipes_own_are_part_of_it() -> None:
    recipe = Recipe(name="r", training=Training(epochs=3, learning_rate=1e-4))
    told = recipe.trained_with(Training(epochs=0.5))
    assert told.training == Training(epochs=0.5, learning_rate=1e-4)
    assert told.digest() != recipe.digest()
    assert recipe.trained_with(Training()) == recipe
