"""The stages as settings: which values they take, and how the baseline's training fills in what is left open."""

import pytest
from pydantic import TypeAdapter

from optkit import Distill, Quantize, Sparsify, Training
from optkit.core.settings import RecipeError, Settings
from optkit.recipe.stages import ORDER, Stage


def test_training_takes_what_it_is_given_then_the_tasks_then_berts() -> None:
    filled = Training(epochs=2, warmup_ratio=0.0).for_task({"epochs": 4, "learning_rate": 3e-4})
    assert (filled.epochs, filled.warmup_ratio) == (2, 0.0)
    assert filled.learning_rate == 3e-4
    assert (filled.batch_size, filled.weight_decay) == (32, 0.01)
    assert None not in filled.model_dump().values()


def test_training_with_mistakes_is_not_filled() -> None:
    with pytest.raises(RecipeError, match=r"Training\.epochs is 0: input should be greater than 0"):
        Training(epochs=0).for_task({})


@pytest.mark.parametrize(
    ("stage", "field"),
    [
        (Distill(epochs=0), "epochs"),  # a student that is not trained knows nothing
        (Distill(layers=0), "layers"),
        (Distill(hidden_size=0), "hidden_size"),
        (Distill(teacher=None), "teacher"),
        (Distill(augment=1), "augment"),
        (Distill(representation_epochs=-1), "representation_epochs"),
        (Sparsify(criterion="random"), "criterion"),
        (Sparsify(dropout=1), "dropout"),
        (Quantize(percentile=50), "percentile"),
        (Quantize(label_weight=1.1), "label_weight"),
        (Quantize(temperature=0), "temperature"),
    ],
)
def test_values_that_make_no_sense_are_refused(stage: Settings, field: str) -> None:
    with pytest.raises(RecipeError, match=rf"1 mistake:\n  - {type(stage).__name__}\.{field} is "):
        stage.checked()


def test_a_stage_comes_back_from_json() -> None:
    stages: TypeAdapter[list[Stage]] = TypeAdapter(list[Stage])
    written = [Distill(layers=4, augment=0.2), Sparsify(criterion="sparsegpt"), Quantize(gelu_clip=10, epochs=1)]
    read = stages.validate_python([stage.model_dump(mode="json") for stage in written])
    assert read == written and [type(stage) for stage in read] == [Distill, Sparsify, Quantize]
    assert tuple(stage.technique for stage in read) == ORDER


def test_representations_without_a_teacher_to_follow() -> None:
    with pytest.raises(RecipeError) as error:
        Sparsify(teacher=None, representation_epochs=2).checked()
    assert str(error.value).splitlines() == [
        "Sparsify has 1 mistake:",
        "  - Sparsify.representation_epochs is 2 and there is no teacher to follow: name one, or leave "
        "representation_epochs at 0",
    ]
