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


@pytest.mark.parametrize("wrong", ["big@", "big@one", "big@-1", "big@4294967296", "big@٣", "@1", "Big", "", 3])
def test_what_is_no_teacher_is_refused(wrong: object) -> None:
    expected = (
        r"Distill\.teacher is \[.*\]: expected a recipe, a recipe of a seed such as baseline_fp32@1, a folder, or a list of "
        rf"them; found {wrong!r}$"
    )
    with pytest.raises(RecipeError, match=expected):
        Recipe(name="one", stages=[Distill(teacher=["baseline_fp32", wrong])])


def test_several_teachers_whose_answers_nobody_asks_for() -> None:
    """Representations follow one."""
    assert Sparsify(steps=0, representation_steps=5, teacher=SEEDS[:1]).checked().teachers == (SEEDS[0],)
    with pytest.raises(RecipeError, match=r"Sparsify\.teacher names 2, and nothing is trained on their averaged logits"):
        Sparsify(steps=0, representation_steps=5, teacher=SEEDS).checked()


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
    assert list(mistakes_of_teachers(unknown, known, {})) == [
        "recipe 'one': teacher 'big' is not a recipe; known: baseline_fp32. A folder is written with a slash, as ./big"
    ]


def test_recipes_that_teach_each_other_by_seeds_are_a_circle() -> None:
    first = Recipe(name="first", stages=[Distill(teacher=["baseline_fp32", "second@1"])])
    second = Recipe(name="second", stages=[Distill(teacher=["./big", "first@2"])])
    known = {one.name: one for one in (Recipe(name="baseline_fp32"), first, second)}
    found = "recipes first, second teach each other; expected one of them to learn from another recipe"
    assert list(mistakes_of_teachers(first, known, {})) == [found]
