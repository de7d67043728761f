"""Names of teachers: what they mean, and which are none."""

import pytest

from optkit import Distill, Quantize, Recipe, Sparsify
from optkit.core.settings import RecipeError
from optkit.recipe.finder import mistakes_of_teachers
from optkit.recipe.teacher_names import is_folder, is_teacher, recipe_of, seed_of

SEEDS = ["baseline_fp32@0", "baseline_fp32@12"]


def test_a_recipe_with_and_without_a_seed() -> None:
    assert [recipe_of(name) for name in ("big", "big@3")] == ["big", "big"]
    assert [seed_of(name, 7) for name in ("big", "big@3", "big@0")] == [7, 3, 0]


def test_folders_are_told_apart() -> None:
    assert [is_folder(name) for name in ("./big", "/models/big", "models/big@1", "baseline_fp32@1")] == [True] * 3 + [False]
    assert all(map(is_teacher, ("./Big model", "big", "big@1")))


@pytest.mark.parametrize("wrong", ["big@", "big@one", "big@-1", "@1", "Big", ""])
def test_what_is_no_teacher_is_refused(wrong: str) -> None:
    with pytest.raises(RecipeError, match=r"Distill\.teacher is \[.*\]: expected a recipe, a recipe of a seed such as"):
        Recipe(name="one", stages=[Distill(teacher=["baseline_fp32", wrong])])


def test_several_teachers_are_kept_and_stored() -> None:
    recipe = Recipe(name="one", stages=[Distill(teacher=SEEDS), Sparsify(teacher="./big"), Quantize(epochs=1)])
    assert recipe.teachers == (*SEEDS, "./big", "baseline_fp32")
    assert Recipe(**recipe.model_dump(mode="json")).stages == recipe.stages


def test_no_teacher_in_a_list_is_a_mistake() -> None:
    with pytest.raises(RecipeError, match=r"1 mistake:\n  - Sparsify\.teacher is \[\]: expected"):
        Sparsify(teacher=[]).checked()


def test_recipes_of_seeds_are_looked_up_by_their_recipe() -> None:
    known = {"baseline_fp32": Recipe(name="baseline_fp32")}
    good = Recipe(name="one", stages=[Distill(teacher=SEEDS)])
    assert list(mistakes_of_teachers(good, known, {})) == []
    itself = Recipe(name="one", stages=[Distill(teacher="one@1")])
    assert list(mistakes_of_teachers(itself, known, {})) == [
        "recipe 'one': it is its own teacher; expected another recipe, as baseline_fp32"
    ]
    unknown = Recipe(name="one", stages=[Distill(teacher="big@1")])
    assert "teacher 'big' is not a recipe" in next(mistakes_of_teachers(unknown, known, {}))
