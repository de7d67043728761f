"""The techniques by name: which values their settings take, and that they come back from JSON in their order."""

import subprocess
import sys

import pytest

from optkit import Distill, ProductQuantize, Quantize, Sparsify
from optkit.compression.registry import TECHNIQUES, ordered, stage_of
from optkit.core.code_version import closure
from optkit.core.errors import InputError
from optkit.core.settings import RecipeError, Settings


@pytest.mark.parametrize(
    ("stage", "field"),
    [
        (Distill(epochs=-1), "epochs"),
        (Distill(steps=-1), "steps"),
        (Distill(ema=1), "ema"),
        (Distill(schedule="exponential"), "schedule"),
        (Distill(learning_rates=[1e-4, 0]), r"learning_rates\.1"),
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
    first = [Distill(layers=4, augment=0.2), Sparsify(criterion="sparsegpt"), ProductQuantize(block=8)]
    written = [*first, Quantize(gelu_clip=10, epochs=1)]
    read = [stage_of(stage.model_dump(mode="json")) for stage in written]
    assert read == written and [type(stage) for stage in read] == [type(stage) for stage in written]
    assert [stage.technique for stage in read] == list(TECHNIQUES.own) == ordered({*TECHNIQUES.own})


@pytest.mark.parametrize("settings", [{}, {"technique": "quantise"}, {"technique": None, "epochs": 1}])
def test_an_unknown_technique_is_named_with_the_known_ones(settings: dict) -> None:
    with pytest.raises(
        InputError,
        match=r"technique '.*': there is none of that name; expected one of distill, sparsify, product_quantize, q",
    ):
        stage_of(settings)


def test_what_a_technique_works_with_is_part_of_its_code() -> None:
    assert {"optkit.compression.quantizers", "optkit.compression.retrain"} <= closure(Quantize.__module__)
    assert "optkit.compression.pruning" in closure(Sparsify.__module__)
    assert "optkit.compression.student" in closure(Distill.__module__)


def test_the_techniques_are_known_without_what_they_work_with() -> None:
    code = (
        "import sys; from optkit.compression.registry import TECHNIQUES, ordered; ordered(TECHNIQUES.names()); "
        "print([name for name in ('torch', 'transformers', 'numpy', 'modelopt') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_representations_without_a_teacher_to_follow() -> None:
    with pytest.raises(RecipeError) as error:
        Sparsify(teacher=None, representation_epochs=2).checked()
    assert str(error.value).splitlines() == [
        "Sparsify has 1 mistake:",
        "  - Sparsify.representation_epochs is 2 and there is no teacher to follow: name one, or leave "
        "representation_epochs at 0",
    ]
