"""Ranking of labels as scikit-learn has it, and the thresholds of highest F1."""

from itertools import product

import numpy as np
import pytest
from sklearn.metrics import f1_score, label_ranking_average_precision_score

from optkit.tasks.label_sets_metric import best_thresholds, ranking_precision


def test_by_hand() -> None:
    # ranks of the right labels: 1 and 3 -> (1/1 + 2/3) / 2; 2 -> 1/2; none -> 1; tied with another -> 1/2
    logits = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [2.0, 2.0, 1.0]])
    gold = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=bool)
    assert ranking_precision(logits, gold).tolist() == pytest.approx([5 / 6, 1 / 2, 1, 1 / 2])


@pytest.mark.slow
def test_ranking_is_scikit_learns() -> None:
    random = np.random.default_rng(0)
    gold, logits = random.random((200, 6)) < 0.3, random.integers(0, 5, (200, 6)).astype(np.float32)  # many are equal
    assert ranking_precision(logits, gold).mean() == pytest.approx(label_ranking_average_precision_score(gold, logits))


def micro_f1(gold: np.ndarray, chosen: np.ndarray) -> float:
    """Twice the hits over all that is right and all that was chosen: scikit-learn takes a thousand times as long."""
    return 2 * (gold & chosen).sum() / max(1, gold.sum() + chosen.sum())


def test_no_other_thresholds_have_a_higher_f1() -> None:
    """Every combination of cuts of small examples is tried."""
    random = np.random.default_rng(0)
    for _ in range(20):
        logits, gold = random.normal(size=(6, 3)), random.random((6, 3)) < 0.4
        cuts = [np.append(column - 1e-9, column.max() + 1) for column in logits.T]
        best = max(micro_f1(gold, logits > np.array(one)) for one in product(*cuts))
        found = f1_score(gold, logits > best_thresholds(logits, gold), average="micro", zero_division=0)
        assert found == pytest.approx(best)


def test_a_threshold_lies_in_the_middle_and_never_between_equal_logits() -> None:
    logits = np.array([[3.0, 1.0], [1.0, 1.0], [-1.0, 1.0], [-2.0, -1.0]])
    gold = np.array([[1, 1], [1, 1], [0, 0], [0, 0]], dtype=bool)
    assert best_thresholds(logits, gold).tolist() == [0.0, 0.0]


def test_labels_that_all_or_no_examples_have() -> None:
    logits = np.array([[3.0, 1.0], [1.0, 2.0]])
    gold = np.array([[1, 0], [1, 0]], dtype=bool)
    always, never = best_thresholds(logits, gold)
    assert always < 1.0 and never > 2.0
    assert np.isfinite(best_thresholds(logits, np.zeros((2, 2), dtype=bool))).all()
