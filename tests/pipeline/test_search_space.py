"""Spaces of a search: what is drawn from them, and every mistake by name."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig

from optkit import Distill, Quantize, Recipe, Sparsify
from optkit.core.errors import InputError
from optkit.pipeline import search_recipes, search_space
from optkit.recipe import finder


class First:
    """Draws the first choice, and the lower end; keeps what was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.asked.append(name)
        return choices[0]

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        self.asked.append(name)
        return low

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.asked.append(name)
        return low


def space_of(folder: Path, content: Any) -> search_space.Space:
    path = folder / "space.json"
    path.write_text(json.dumps(content))
    return search_space.read(path)


def test_the_default_draws_recipes_whose_start_is_known() -> None:
    space = search_space.read()
    stages = space.draw(First(), BertConfig(num_hidden_layers=6))
    assert Recipe(name="drawn", stages=stages).is_quantised
    names = {*space.settings, "techniques"}
    assert space.first_trials() and all(names >= one.keys() for one in space.first_trials())


def test_shares_are_of_the_model(tmp_path: Path) -> None:
    given = {"techniques": [["distill"]], "settings": {"distill.layers": [0.5], "distill.hidden_size": [384]}}
    (stage,) = space_of(tmp_path, given).draw(First(), BertConfig(num_hidden_layers=12))
    assert (stage.layers, stage.hidden_size) == (6, 384)  # type: ignore[attr-defined]


def test_a_range_of_whole_numbers(tmp_path: Path) -> None:
    ranges = {"distill.layers": {"low": 2, "high": 4}, "distill.epochs": {"low": 0.5, "high": 2}}
    (stage,) = space_of(tmp_path, {"techniques": [["distill"]], "settings": ranges}).draw(First(), BertConfig())
    assert stage == Distill(layers=2, epochs=0.5)
    shares = {"distill.layers": {"low": 0.25, "high": 1.0}}
    (stage,) = space_of(tmp_path, {"techniques": [["distill"]], "settings": shares}).draw(First(), BertConfig())
    assert stage == Distill(layers=3)
    (stage,) = space_of(tmp_path, {"techniques": [["distill"]], "settings": {"distill.layers": [1.0]}}).draw(
        First(), BertConfig(num_hidden_layers=6)
    )
    assert stage == Distill(layers=6)


def test_a_setting_of_no_technique_of_the_space_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    space_of(tmp_path, {"techniques": [["quantize"]], "settings": {"distill.layers": [2]}})
    assert "no recipe of the space reads distill.layers, which is left out: no techniques of the space have" in caplog.text


def test_equal_stages_of_two_models_are_two_recipes() -> None:
    names = [search_recipes.recipe_of([Quantize()], {}, model).name for model in (0, 1, 1)]
    assert names[0] != names[1] == names[2]


def test_engines_for_another_workload_are_another_recipe() -> None:
    workloads = [{}, {"workload": ()}, {"workload": ((1, 32),)}, {"workload": ((8, 128),)}]
    names = [search_recipes.recipe_of([Quantize()], settings).name for settings in workloads]
    assert names[0] == names[1] and len(set(names)) == 3


def test_what_nothing_reads_is_not_drawn(tmp_path: Path) -> None:
    settings = {"quantize.learning_rate": {"low": 1e-6, "high": 1e-4, "log": True}, "quantize.epochs": [0, 1]}
    given = {"techniques": [["quantize"]], "settings": {**settings, "quantize.calibrator": ["mse", "max"]}}
    draws = First()
    (stage,) = space_of(tmp_path, given).draw(draws, BertConfig())
    assert draws.asked == ["quantize.epochs", "quantize.calibrator"]
    assert stage == Quantize(calibrator="mse")


def test_a_student_that_nothing_trains_is_not_drawn(tmp_path: Path) -> None:
    untrained = {"distill.epochs": [0], "distill.representation_epochs": [0]}
    techniques = [["distill", "quantize"]]
    space = space_of(tmp_path, {"techniques": techniques, "settings": {**untrained, "quantize.epochs": [0, 1]}})
    with pytest.raises(InputError, match="Distill trains nothing and no later stage does"):
        space.draw(First(), BertConfig())
    made, trained = space.draw(Last(), BertConfig())
    assert made.needs_training and trained.trains


def test_a_representation_phase_alone_can_be_drawn(tmp_path: Path) -> None:
    phase = {"sparsify.epochs": [0], "sparsify.representation_epochs": [2]}
    (stage,) = space_of(tmp_path, {"techniques": [["sparsify"]], "settings": phase}).draw(First(), BertConfig())
    assert stage == Sparsify(epochs=0, representation_epochs=2)


class Last(First):
    """Draws the last choice, and the upper end."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return super().suggest_categorical(name, choices[::-1])


def test_what_depends_on_a_choice_is_drawn_after_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {
        "quantize.keep_budget": [0.05, 0.2],
        "quantize.quant_noise": [0.5, 0.9],
        "quantize.percentile": [99.9],
        "quantize.keep_float": [[], "auto"],
        "quantize.epochs": [0, 1],
        "quantize.calibrator": ["max", "percentile"],
    }
    space = space_of(tmp_path, {"techniques": [["quantize"]], "settings": settings})
    assert space.draw(First(), BertConfig()) == (Quantize(),)
    assert space.draw(Last(), BertConfig()) == (
        Quantize(calibrator="percentile", percentile=99.9, keep_float="auto", keep_budget=0.2, epochs=1, quant_noise=0.9),
    )
    assert not caplog.records


def test_what_no_recipe_reads_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {"quantize.keep_budget": [0.05, 0.2], "quantize.keep_float": [[]], "quantize.scale_rate": [5]}
    space = space_of(tmp_path, {"techniques": [["quantize"]], "settings": settings})
    assert [record.args[1:] for record in caplog.records if isinstance(record.args, tuple)] == [
        ("quantize.keep_budget", "keep_float is not 'auto'"),
        ("quantize.scale_rate", "nothing is trained, for want of epochs or steps"),
    ]
    assert space.draw(Last(), BertConfig()) == (Quantize(),)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"techniques": []}, "the space is empty"),
        ({"techniques": [[]]}, "the space is empty"),
        ({"techniques": [["quantize", "distill"]]}, "in the order in which they are applied"),
        ({"techniques": [["quantise"]]}, "technique 'quantise': expected one of"),
        ({"techniques": [["quantize"]], "settings": {"epochs": [1]}}, "expected <technique>.<setting>"),
        ({"techniques": [["quantize"]], "settings": {"quantize.calibrater": ["kl"]}}, "did you mean 'calibrator'"),
        ({"techniques": [["quantize"]], "settings": {"quantize.calibrator": []}}, "found no values: the space is empty"),
        (
            {"techniques": [["quantize"]], "settings": {"quantize.calibrator": ["kl", "best"]}},
            "Quantize.calibrator is 'best'",
        ),
        ({"techniques": [["quantize"]], "settings": {"quantize.epochs": {"low": 2, "high": 1}}}, "with low below high"),
        (
            {"techniques": [["quantize"]], "settings": {"quantize.learning_rate": {"low": 0, "high": 1, "log": True}}},
            "above 0",
        ),
        (
            {"techniques": [["quantize"]], "settings": {"quantize.learning_rate": {"low": -1, "high": 1}}},
            "learning_rate is -1",
        ),
        ({"techniques": [["quantize"]], "start": [{"quantize.epochs": 1}]}, "'quantize.epochs' is no setting of the space"),
        ({"techniques": [["quantize"]], "start": [{"techniques": ["distill"]}]}, "techniques is ['distill'], which is none"),
        (
            {
                "techniques": [["quantize"]],
                "settings": {"quantize.calibrator": ["kl"]},
                "start": [{"quantize.calibrator": "max"}],
            },
            "start: quantize.calibrator is 'max', which is none of the space's values",
        ),
        (
            {
                "techniques": [["quantize"]],
                "settings": {"quantize.epochs": {"low": 0, "high": 2}},
                "start": [{"quantize.epochs": 7}],
            },
            "start: quantize.epochs is 7, which is none",
        ),
        ({"techniques": [["quantize"]], "settings": {"quantize.shift": {"low": 0, "high": 1}}}, "as it takes no range"),
        ({"techniques": [["distill"]], "settings": {"distill.layers": {"low": 1.5, "high": 3}}}, "both whole"),
        ({"techniques": [["quantize"]], "settings": {"quantize.technique": ["quantize"]}}, "and no choice"),
        (
            {"techniques": [["quantize"]], "settings": {"quantize.teacher": ["baseline_fp32@1", "./big", "qat_gelu10"]}},
            "'quantize.teacher': found the recipe 'qat_gelu10', expected baseline_fp32, one of its seeds, or a folder",
        ),
        (
            {"techniques": [["quantize"]], "settings": {"quantize.epochs": [1], "quantize.steps": [5, 9]}},
            "'quantize.epochs' and 'quantize.steps': expected one of them",
        ),
        ({"settings": {}}, "lacks techniques"),
        ({"techniques": "quantize"}, "expected an array"),
    ],
)
def test_mistakes_by_name(given: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        space_of(tmp_path, given)


def test_all_mistakes_together(tmp_path: Path) -> None:
    with pytest.raises(InputError) as found:
        space_of(tmp_path, {"techniques": [["a"], ["b"]], "settings": {"quantize.c": [1]}})
    assert str(found.value).count("\n  - ") == 3


def test_a_recipe_file_is_the_recipe(tmp_path: Path) -> None:
    stages = [
        Distill(layers=2, augment=0.3, learning_rates=(1e-5, 2.5e-5)),
        Quantize(calibrator="kl", learning_rate=1.2345678901234567e-05, keep_float="auto", epochs=1, shift=True, ema=0.98),
    ]
    recipe = search_recipes.recipe_of(stages, {"max_drop": 0.5, "max_p99_ms": {"1": 20.0}})
    path = search_recipes.write(recipe, tmp_path, 'Found "here" \\ there.', "--task sample")
    assert finder.find_recipe(str(path)) == recipe
    assert path.name == f"{recipe.name}.py" and recipe.name.startswith("found_")
    assert search_recipes.recipe_of(stages, {"max_drop": 2.0}).name == recipe.name, "a gate changes no result"
