"""How a model is trained: what is left open is filled from the task, then from BERT's fine-tuning."""

import pytest

from optkit import Distill, ProductQuantize, Quantize, Recipe, Sparsify, Training
from optkit.core.settings import RecipeError
from optkit.recipe.stage import Taught


def test_training_takes_what_it_is_given_then_the_tasks_then_berts() -> None:
    filled = Training(epochs=2, warmup_ratio=0.0).for_task({"epochs": 4, "learning_rate": 3e-4})
    assert (filled.epochs, filled.warmup_ratio) == (2, 0.0)
    assert filled.learning_rate == 3e-4
    assert (filled.batch_size, filled.weight_decay) == (32, 0.01)
    open_still = [name for name, value in filled.model_dump().items() if value is None]
    assert open_still == ["steps"], "epochs are the budget"


def test_training_with_mistakes_is_not_filled() -> None:
    with pytest.raises(RecipeError, match=r"Training\.epochs is 0: input should be greater than 0"):
        Training(epochs=0).for_task({})


STAGES: list[type[Taught]] = [Distill, Sparsify, ProductQuantize, Quantize]


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize("phase", ["", "representation_"])
@pytest.mark.parametrize("epochs", ["usual", 7])
def test_a_stage_has_one_budget(kind: type[Taught], phase: str, epochs: object) -> None:
    """Whether or not the other one is what it would be without."""
    given = {f"{phase}steps": 100, f"{phase}epochs": epochs}
    if epochs == "usual":
        given[f"{phase}epochs"] = kind.model_fields[f"{phase}epochs"].default
    assert getattr(kind(**{f"{phase}steps": 100}).checked(), f"{phase}steps") == 100
    found = rf"{kind.__name__}\.{phase}steps is 100 and {phase}epochs is {given[f'{phase}epochs']}: expected one of them"
    with pytest.raises(RecipeError, match=found):
        kind(**given).checked()


@pytest.mark.parametrize("kind", STAGES)
def test_a_budget_in_steps_is_stored_and_read(kind: type[Taught]) -> None:
    """Beside the usual epochs, as a checkpoint has all settings; other epochs are still a mistake."""
    stored = kind(steps=100).model_dump(mode="json")
    assert (stored["steps"], stored["epochs"]) == (100, kind.model_fields["epochs"].default)
    assert kind(**stored).checked() == kind(steps=100)
    with pytest.raises(RecipeError, match="expected one of them"):
        kind(**{**stored, "epochs": 7}).checked()


def test_one_budget_goes_in_place_of_the_other() -> None:
    filled = Training(steps=100).for_task({"epochs": 4})
    assert (filled.epochs, filled.steps) == (None, 100)
    with pytest.raises(RecipeError, match=r"Training has epochs=2 and steps=100: expected one of them"):
        Training(epochs=2, steps=100).checked()
    recipe = Recipe(name="one", training=Training(steps=100, learning_rate=1e-4))
    assert recipe.trained_with(Training(epochs=3)).training == Training(epochs=3, learning_rate=1e-4)
    assert recipe.trained_with(Training(steps=5)).training.steps == 5
    assert Recipe(name="two", training=Training(epochs=3)).trained_with(Training(steps=5)).training == Training(steps=5)


@pytest.mark.parametrize("budget", [{"epochs": 3, "steps": 9}, {"representation_epochs": 2, "representation_steps": 9}])
def test_a_stage_has_one_budget_too(budget: dict[str, int]) -> None:
    with pytest.raises(RecipeError, match=r"Sparsify\.\w*steps is 9 and \w*epochs is \d: expected one of them"):
        Sparsify(**budget).checked()
