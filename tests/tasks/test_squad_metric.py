"""Exact match and F1 against values by hand and against torchmetrics."""

import random

import pytest
from torchmetrics.functional.text import squad

from optkit.tasks.squad_metric import exact_match, f1, normalized


def test_normalisation() -> None:
    assert normalized("  The  U.S. Army’s, an\t'A' Team! ") == "us army’s team"
    assert normalized("theatre another") == "theatre another"


@pytest.mark.parametrize(
    ("prediction", "answers", "exact", "overlap"),
    [
        ("the Cat", ["cat!"], 1.0, 1.0),
        ("black cat", ["a cat"], 0.0, 2 / 3),
        ("cat cat dog", ["cat cat cat"], 0.0, 2 / 3),
        ("black cat", ["dog", "the black cat sat", "cat"], 0.0, 0.8),
        ("dog", ["cat", "Dog."], 1.0, 1.0),
        ("", ["cat"], 0.0, 0.0),
        ("the", ["a"], 1.0, 0.0),  # nothing is left to compare: the official script gives F1 0 there
    ],
)
def test_values_by_hand(prediction: str, answers: list[str], exact: float, overlap: float) -> None:
    assert exact_match(prediction, answers) == exact
    assert f1(prediction, answers) == pytest.approx(overlap)


def test_means_equal_torchmetrics() -> None:
    chance = random.Random(0)
    words = ["The", "cat", "sat,", "a", "mat", "on", "Zürich", "1,000", "U.S.", "cat's"]

    def phrase() -> str:
        return " ".join(chance.choices(words, k=chance.randint(1, 6))) + " x" * chance.randint(0, 1) + " end"

    predictions = [phrase() for _ in range(300)]
    answers = [[phrase() for _ in range(chance.randint(1, 3))] for _ in predictions]
    expected = squad(
        [{"prediction_text": text, "id": str(i)} for i, text in enumerate(predictions)],
        [{"answers": {"text": gold, "answer_start": [0] * len(gold)}, "id": str(i)} for i, gold in enumerate(answers)],
    )
    pairs = list(zip(predictions, answers, strict=True))
    assert 100 * sum(f1(*pair) for pair in pairs) / 300 == pytest.approx(float(expected["f1"]), abs=1e-3)
    assert 100 * sum(exact_match(*pair) for pair in pairs) / 300 == pytest.approx(float(expected["exact_match"]), abs=1e-3)
