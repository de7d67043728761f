"""How a model is trained: what is left open is filled from the task, then from BERT's fine-tuning."""

import pytest

from optkit import Training
from optkit.core.settings import RecipeError


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
