"""Settings keep their mistakes until all are reported, and name the setting, what was given and what is expected."""

import pytest

from optkit import Distill, Quantize, Recipe, Sparsify, Training
from optkit.core.settings import RecipeError, Settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"stages": [Quantize(gelu_clp=10)]},
            r"Quantize has no setting 'gelu_clp'; it has epochs, .*, gelu_clip, .*, embeddings",
        ),
        ({"stages": [Sparsify(citerion="magnitude")]}, r"Sparsify has no setting 'citerion'; it has epochs, .*, criterion"),
        (
            {"stages": [Distill(layer=4)]},
            r"Distill has no setting 'layer'; it has epochs, .*, augment, layers, hidden_size$",
        ),
        ({"training": Training(lr=1e-5)}, r"Training has no setting 'lr'; it has epochs, learning_rate, batch_size"),
        ({"stagse": []}, r"Recipe has no setting 'stagse'; it has name, stages, training, max_drop"),
    ],
)
def test_an_unknown_setting_is_named_with_the_known_ones(given: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe(**{"name": "one", **given})


@pytest.mark.parametrize("stage", [Distill, Sparsify, Quantize])
def test_technique_is_no_setting_to_offer(stage: type[Settings]) -> None:
    with pytest.raises(RecipeError) as error:
        Recipe(name="one", stages=[stage(unknown=1)])
    assert "technique" not in str(error.value)


@pytest.mark.parametrize("part", [Quantize(learning_rate=float("inf")), Quantize(gelu_clip=float("inf"))])
def test_settings_are_finite(part: Quantize) -> None:
    with pytest.raises(RecipeError, match="is inf: input should be a finite number"):
        Recipe(name="one", stages=[part])


def test_settings_without_a_recipe_are_checked_when_asked() -> None:
    assert Sparsify(epochs=3).checked().epochs == 3
    with pytest.raises(RecipeError) as error:
        Sparsify(epochs=-1, criterion="random").checked()
    assert str(error.value).splitlines() == [
        "Sparsify has 2 mistakes:",
        "  - Sparsify.epochs is -1: input should be greater than or equal to 0",
        "  - Sparsify.criterion is 'random': input should be 'magnitude' or 'sparsegpt'",
    ]
