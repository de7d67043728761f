"""Metrics of rankings against values computed by hand and against scikit-learn; intervals over queries."""

from math import log2

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from optkit.evaluation.bootstrap import paired_bootstrap
from optkit.tasks.outcomes import value
from optkit.tasks.rankings import by_chance, per_query, ranked

RELEVANCE = [{"a": 1, "b": 0, "c": 2}, {"d": 1}, {"e": 1}]
FOUND = [{"a": 2.0, "b": 3.0, "c": 1.0, "not judged": 4.0}, {"d": 0.0, "x": -1.0}, {"x": 1.0}]
"""The first finds its relevant documents at the third and the fourth place, the second at the first, the third none."""
GAIN = 1 / log2(4) + 2 / log2(5)
IDEAL = 2 / log2(2) + 1 / log2(3)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("ndcg", [GAIN / IDEAL, 1, 0]),
        ("ndcg@10", [GAIN / IDEAL, 1, 0]),
        ("ndcg@3", [1 / log2(4) / IDEAL, 1, 0]),
        ("ndcg@1", [0, 1, 0]),
        ("mrr", [1 / 3, 1, 0]),
        ("mrr@3", [1 / 3, 1, 0]),
        ("mrr@2", [0, 1, 0]),
        ("map", [(1 / 3 + 2 / 4) / 2, 1, 0]),
        ("map@3", [1 / 3 / 2, 1, 0]),
        ("recall@2", [0, 1, 0]),
        ("recall@3", [1 / 2, 1, 0]),
        ("recall@100", [1, 1, 0]),
    ],
)
def test_a_metric_is_what_a_hand_computes(metric: str, expected: list[float]) -> None:
    outcomes = per_query(RELEVANCE, FOUND, [metric, "map"])
    assert outcomes[metric] == pytest.approx(100 * np.array(expected))
    assert value(outcomes, metric) == pytest.approx(100 * np.mean(expected))


@pytest.mark.parametrize("place", [1, 3, 7, 9, 10, 11, 49, 50])
def test_reciprocal_ranks_end_where_they_should(place: int) -> None:
    found = [{f"{index:02}": float(-index) for index in range(1, 60)}]
    outcomes = per_query([{f"{place:02}": 1}], found, [f"mrr@{place}", f"mrr@{place + 1}", f"mrr@{max(place - 1, 1)}"])
    assert outcomes[0][0] == outcomes[0][1] == pytest.approx(100 / place)
    assert place == 1 or outcomes[0][2] == 0


def test_ndcg_is_scikit_learns() -> None:
    random = np.random.default_rng(0)
    grades, scores = random.integers(0, 4, (20, 30)), random.normal(size=(20, 30))
    relevance, found = ([{str(name): x for name, x in enumerate(row)} for row in side.tolist()] for side in (grades, scores))
    assert per_query(relevance, found, ["ndcg@10"])["ndcg@10"].mean() == pytest.approx(
        100 * ndcg_score(grades, scores, k=10)
    )


def test_equal_scores_stand_by_name_in_metrics_and_lists() -> None:
    scores = {"b": 1.0, "é": 1.0, "a": 1.0 + 1e-9, "z": 0.5}
    assert ranked(scores) == ["é", "b", "a", "z"]
    for place, name in enumerate(ranked(scores), start=1):
        assert per_query([{name: 1}], [scores], ["mrr"])["mrr"] == pytest.approx(100 / place)


def test_chance_is_the_mean_of_random_orders() -> None:
    relevance = [{str(name): int(name == 0) for name in range(4)}] * 200
    found = [{str(name): 4.0 - name for name in range(4)}] * 200
    assert per_query(relevance, found, ["mrr"])["mrr"].mean() == 100
    assert by_chance(relevance, found, "mrr") == pytest.approx(100 * (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4, abs=2)


def test_an_interval_is_over_queries() -> None:
    random = np.random.default_rng(0)
    relevance = [{"0": 1, "1": 0, "2": 0}] * 100
    good, bad = ([{str(name): x for name, x in enumerate(row)} for row in side] for side in _scores(random))
    ours, theirs = (per_query(relevance, found, ["mrr@10", "map"]) for found in (bad, good))
    assert ours.shape == (100,)
    low, high = paired_bootstrap(ours, theirs, "mrr@10", resamples=500)
    assert low < value(ours, "mrr@10") - value(theirs, "mrr@10") < high < 0


def test_what_has_no_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="query 1 of 2 has no relevant document"):
        per_query([{"a": 1}, {"b": 0}], [{"a": 1.0}, {"b": 1.0}], ["map"])
    for name in ("ndcg@0", "recall", "mrr@", "precision@3"):
        with pytest.raises(ValueError, match=f"metric '{name}': expected ndcg@K"):
            per_query([{"a": 1}], [{"a": 1.0}], [name])


def _scores(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a good ranker and of a bad one, each [100, 3]."""
    good = random.normal(size=(100, 3)) + np.array([3.0, 0, 0])
    return good, good + 3 * random.normal(size=(100, 3))
