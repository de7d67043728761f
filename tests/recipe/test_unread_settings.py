"""Settings that nothing reads as the others are: refused by name where given, left as they are where stored."""

import pytest

from optkit import Distill, ProductQuantize, Quantize, Recipe, Sparsify
from optkit.compression.registry import TECHNIQUES, stage_of
from optkit.core.settings import RecipeError
from optkit.recipe.stage import Stage


@pytest.mark.parametrize(
    ("stage", "names"),
    [
        (Quantize(keep_budget=0.3), ["keep_budget=0.3, as keep_float is not 'auto'"]),
        (Quantize(keep_float="*.query", keep_budget=0.3), ["keep_budget=0.3"]),
        (Sparsify(keep_budget=0.3), ["keep_budget=0.3, as keep_dense is not 'auto'"]),
        (Quantize(calibrator="mse", percentile=99), ["percentile=99.0, as the calibrator is not percentile"]),
        (Sparsify(calibration_examples=64), ["calibration_examples=64, as the criterion is not sparsegpt"]),
        (Quantize(quant_noise=0.5, scale_rate=5, guard=False), ["quant_noise=0.5", "scale_rate=5.0", "guard=False"]),
        (Quantize(steps=0, learning_rate=1e-4), ["learning_rate=0.0001"]),
        (Quantize(teacher="./big", ema=0.9, augment=0.3), ["teacher='./big'", "ema=0.9", "augment=0.3"]),
        (Sparsify(learning_rate=1e-4, learning_rates=(1e-5, 1e-4)), ["learning_rate=0.0001"]),
        (Sparsify(relation_heads=4, hidden_weight=2), ["hidden_weight=2.0", "relation_heads=4"]),
        (Sparsify(representation_epochs=1, relation_weight=0, relation_heads=4), ["relation_heads=4"]),
        (Distill(representation_epochs=0, representation_learning_rate=1e-4), ["representation_learning_rate=0.0001"]),
        (Sparsify(teacher=None, temperature=3, label_weight=0.2), ["temperature=3.0", "label_weight=0.2"]),
        (ProductQuantize(epochs=0, groups=3), ["groups=3"]),
        (Distill(label_weight=1, teacher="./big", representation_epochs=0), ["teacher='./big'"]),
        (Sparsify(label_weight=1, temperature=3), ["temperature=3.0"]),
    ],
)
def test_what_nothing_reads_is_refused_by_name(stage: Stage, names: list[str]) -> None:
    with pytest.raises(RecipeError, match=f"{type(stage).__name__} has settings that nothing reads") as found:
        stage.checked()
    assert all(name in str(found.value) for name in names) and str(found.value).count("=") == len(names)
    with pytest.raises(RecipeError, match="that nothing reads"):
        Recipe(name="one", stages=[stage])


@pytest.mark.parametrize(
    "stage",
    [
        Quantize(keep_float="auto", keep_budget=0.3),
        Quantize(calibrator="percentile", percentile=99),
        Quantize(epochs=1, quant_noise=0.5, scale_rate=5, guard=False, learning_rates=(1e-5, 1e-4)),
        Quantize(representation_steps=5, scale_rate=5, augment=0.3, relation_heads=2),
        Quantize(teacher=None, dropout=None, percentile=99.99),  # asks for nothing that is not done
        Sparsify(teacher=None, label_weight=1),
        Sparsify(criterion="sparsegpt", keep_dense="auto", keep_budget=0.3, calibration_examples=64),
    ],
)
def test_what_is_read_is_taken(stage: Stage) -> None:
    stage.checked()


def test_what_is_stored_is_taken_as_it_is() -> None:
    """Recipes of earlier versions lie beside their checkpoints."""
    stored = {**Quantize().model_dump(mode="json"), "keep_budget": 0.3, "quant_noise": 0.5}
    stage = stage_of(stored)
    assert isinstance(stage, Quantize) and (stage.keep_budget, stage.quant_noise) == (0.3, 0.5)
    assert stage.as_read() == Quantize()


def test_a_dictionary_is_given_and_not_stored() -> None:
    """What a program read from a file of its own is as much a wish as what is written in Python."""
    with pytest.raises(RecipeError, match=r"uantize has settings that nothing reads, leave them out: keep_budget=0\.3"):
        Recipe(name="one", stages=[{"technique": "quantize", "keep_budget": 0.3}])
    for stages in ([Quantize(steps=5, learning_rate=1e-4)], [Sparsify(criterion="sparsegpt", representation_steps=3)]):
        recipe = Recipe(name="one", stages=stages)
        assert Recipe(**recipe.resolved()) == recipe, "a dump has the usual values too"


@pytest.mark.parametrize("technique", TECHNIQUES.names())
def test_conditions_are_of_settings_that_there_are(technique: str) -> None:
    kind = TECHNIQUES.get(technique)
    named = {name for setting, where in kind.read_where.items() for name in (setting, *where.others)}
    assert named <= kind.model_fields.keys()
