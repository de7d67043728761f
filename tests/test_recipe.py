"""Recipes: data that cannot be changed, whose mistakes are reported together."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from optkit import Quantize, Recipe, Training
from optkit.settings import RecipeError


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
    assert "Quantize.calibrator is 'maximum': input should be 'max', 'percentile', 'mse' or 'entropy'" in text
    assert "Quantize.temperature is 0: input should be greater than 0" in text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stages": [Quantize(gelu_clp=10)]}, r"Quantize has no setting 'gelu_clp'; it has calibrator, .*gelu_clip"),
        ({"training": Training(lr=1e-5)}, r"Training has no setting 'lr'; it has epochs, learning_rate, batch_size"),
        ({"stagse": []}, r"Recipe has no setting 'stagse'; it has name, stages, training, max_drop, description"),
    ],
)
def test_an_unknown_setting_is_named_with_the_known_ones(given: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe(name="one", **given)


def test_technique_is_no_setting_to_offer() -> None:
    with pytest.raises(RecipeError) as error:
        Recipe(name="one", stages=[Quantize(unknown=1)])
    assert "technique" not in str(error.value)


@pytest.mark.parametrize("given", [{"stages": [{"epohcs": 1}]}, {"training": {"batch_sise": 8}}])
def test_mistakes_of_parts_given_as_dictionaries_are_reported_too(given: dict) -> None:
    with pytest.raises(RecipeError, match=r"has no setting '(epohcs|batch_sise)'"):
        Recipe(name="one", **given)


def test_a_recipe_has_a_name() -> None:
    with pytest.raises(RecipeError, match="Recipe needs name"):
        Recipe()


@pytest.mark.parametrize("part", [Quantize(learning_rate=float("inf")), Quantize(gelu_clip=float("inf"))])
def test_settings_are_finite(part: Quantize) -> None:
    with pytest.raises(RecipeError, match="is inf: input should be a finite number"):
        Recipe(name="one", stages=[part])


def test_a_stage_comes_once() -> None:
    with pytest.raises(RecipeError, match="quantize"):
        Recipe(name="one", stages=[Quantize(), Quantize(calibrator="mse")])


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
    assert Recipe(name="one").digest() == Recipe(name="one", description="of one", max_drop=0.5).digest()


def test_teachers_are_those_that_training_needs() -> None:
    assert Recipe(name="ptq", stages=[Quantize(teacher="big")]).teachers == ()
    assert Recipe(name="qat", stages=[Quantize(epochs=1, teacher="big")]).teachers == ("big",)
    assert Recipe(name="qat", stages=[Quantize(epochs=1)]).teachers == ("baseline_fp32",)
    assert Recipe(name="qat", stages=[Quantize(epochs=1, teacher=None)]).teachers == ()


def test_stages_say_what_a_recipe_is() -> None:
    baseline, ptq = Recipe(name="baseline_fp32"), Recipe(name="ptq", stages=[Quantize()])
    assert (baseline.is_baseline, baseline.is_quantised) == (True, False)
    assert (ptq.is_baseline, ptq.is_quantised) == (False, True)


def test_training_takes_what_it_is_given_then_the_tasks_then_berts() -> None:
    filled = Training(epochs=2, warmup_ratio=0.0).for_task({"epochs": 4, "learning_rate": 3e-4})
    assert (filled.epochs, filled.warmup_ratio) == (2, 0.0)
    assert filled.learning_rate == 3e-4
    assert (filled.batch_size, filled.weight_decay) == (32, 0.01)
    assert None not in filled.model_dump().values()


def test_a_recipe_script_runs_itself(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr("optkit.cli.main", asked.append)
    monkeypatch.setattr("sys.argv", ["recipes/one.py", "--task", "sample"])
    Recipe(name="one").main()
    assert asked == [["run", "recipes/one.py", "--task", "sample"]]
