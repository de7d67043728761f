"""The paired bootstrap: what can be computed by hand, and what any interval must do."""

import numpy as np
import pytest

from optkit.evaluation.bootstrap import paired_bootstrap
from optkit.tasks.outcomes import CLASSES


def answers(right: float, count: int = 1000, seed: int = 0) -> np.ndarray:
    """Scores of which a share is 100 and the rest 0."""
    return 100.0 * (np.random.default_rng(seed).random(count) < right)


def test_identical_scores_have_no_width() -> None:
    scores = answers(0.9)
    assert paired_bootstrap(scores, scores, "accuracy", resamples=500) == (0.0, 0.0)


def test_a_constant_difference_has_no_width() -> None:
    scores = answers(0.9)
    assert paired_bootstrap(scores + 0.5, scores, "accuracy", resamples=500) == pytest.approx((0.5, 0.5))


def test_two_examples_by_hand() -> None:
    # Differences 0 and 100: the mean of two draws is 0, 50 or 100 with probability 1/4, 1/2, 1/4.
    assert paired_bootstrap(np.array([50.0, 100.0]), np.array([50.0, 0.0]), "accuracy") == (0.0, 100.0)


def test_the_interval_is_that_of_the_binomial() -> None:
    # 40 of 1000 examples lost, none won: the mean drop is 4 points with a standard error of sqrt(0.04 * 0.96 / 1000).
    baseline, candidate = np.full(1000, 100.0), np.repeat([0.0, 100.0], [40, 960])
    error = 100 * np.sqrt(0.04 * 0.96 / 1000)
    assert paired_bootstrap(candidate, baseline, "accuracy") == pytest.approx(
        (-4 - 1.96 * error, -4 + 1.96 * error), abs=0.15
    )


def test_examples_are_drawn_in_pairs() -> None:
    hard = answers(0.5, seed=1)
    better = np.where(np.arange(1000) < 10, 100.0, hard)  # differs in ten examples or so; unpaired, it would span ±3
    low, high = paired_bootstrap(better, hard, "accuracy", resamples=2000)
    assert 0 < low < high < 1.2


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_contains_the_true_difference(seed: int) -> None:
    covered = 0
    for draw in range(40):
        baseline = answers(0.90, 400, seed=1000 * seed + 2 * draw)
        candidate = answers(0.88, 400, seed=1000 * seed + 2 * draw + 1)
        low, high = paired_bootstrap(candidate, baseline, "accuracy", resamples=500)
        covered += low <= -2.0 <= high
    assert covered >= 34  # of 38 expected; the draws are the same in every run


def test_swapping_the_two_mirrors_the_interval() -> None:
    candidate, baseline = answers(0.88, 300, seed=1), answers(0.9, 300, seed=2)
    low, high = paired_bootstrap(candidate, baseline, "accuracy")
    assert paired_bootstrap(baseline, candidate, "accuracy") == pytest.approx((-high, -low), abs=0.05)


def test_the_same_draw_every_time() -> None:
    candidate, baseline = answers(0.88, 200, seed=1), answers(0.9, 200, seed=2)
    assert paired_bootstrap(candidate, baseline, "accuracy") == paired_bootstrap(candidate, baseline, "accuracy")
    # Differences of many sizes, for else the ends of two draws may be the same by chance.
    candidate = candidate + np.random.default_rng(0).random(200)
    assert paired_bootstrap(candidate, baseline, "accuracy", seed=1) != paired_bootstrap(
        candidate, baseline, "accuracy", seed=2
    )


def test_seeds_that_disagree_widen_the_interval() -> None:
    baseline = np.full((4, 500), 100.0)
    agreed = np.tile(np.repeat([100.0, 0.0], [490, 10]), (4, 1))
    spread = np.stack([np.repeat([100.0, 0.0], [500 - wrong, wrong]) for wrong in (0, 0, 20, 20)])
    one_low, one_high = paired_bootstrap(agreed, baseline, "accuracy", resamples=2000)
    low, high = paired_bootstrap(spread, baseline, "accuracy", resamples=2000)
    assert agreed.mean() == spread.mean()
    assert high - low > 1.3 * (one_high - one_low)


def test_one_seed_is_the_same_as_none() -> None:
    candidate, baseline = answers(0.88, 300, seed=1), answers(0.9, 300, seed=2)
    assert paired_bootstrap(candidate[None], baseline[None], "accuracy") == paired_bootstrap(candidate, baseline, "accuracy")


def test_scores_of_different_examples() -> None:
    with pytest.raises(ValueError, match="shapes"):
        paired_bootstrap(np.zeros(3), np.zeros(4), "accuracy")


def test_groups_of_one_are_examples() -> None:
    candidate, baseline = answers(0.88, 300, seed=1), answers(0.9, 300, seed=2)
    alone = paired_bootstrap(candidate, baseline, "accuracy", np.arange(300))
    assert alone == pytest.approx(paired_bootstrap(candidate, baseline, "accuracy"), abs=0.4)


def test_examples_of_a_group_count_as_one() -> None:
    # Every example ten times, in one group each: as wide as without the copies, and three times as wide as if they were new.
    candidate, baseline = answers(0.85, 200, seed=1), answers(0.9, 200, seed=2)
    copies = np.repeat(candidate, 10), np.repeat(baseline, 10)
    low, high = paired_bootstrap(candidate, baseline, "accuracy")
    assert paired_bootstrap(*copies, "accuracy", np.repeat(np.arange(200), 10)) == pytest.approx((low, high), abs=0.6)
    narrow_low, narrow_high = paired_bootstrap(*copies, "accuracy")
    assert narrow_high - narrow_low == pytest.approx((high - low) / np.sqrt(10), rel=0.05)


def test_two_groups_by_hand() -> None:
    # Groups of 1 and 3 examples with differences 0 and 100: the mean of two draws is 0, 3/4 or 100 (1/4, 1/2, 1/4).
    candidate, baseline, groups = np.array([0.0, 100, 100, 100]), np.zeros(4), np.array([0, 1, 1, 1])
    assert paired_bootstrap(candidate, baseline, "accuracy", groups) == (0.0, 100.0)
    found = paired_bootstrap(np.array([4.0, 0, 0, 0]), baseline, "accuracy", groups)
    assert found == (0.0, 4.0)  # once each is 1, twice the first 4, twice the second 0


def classes(right: float, count: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    found = np.empty(count, CLASSES)
    found["gold"], found["classes"] = random.integers(2, size=count), 2
    found["predicted"] = np.where(random.random(count) < right, found["gold"], 1 - found["gold"])
    return found


@pytest.mark.parametrize("metric", ["f1", "accuracy"])
def test_metrics_that_are_counted_draw_groups_too(metric: str) -> None:
    baseline = classes(0.9, 200, seed=1)
    candidate = baseline.copy()
    candidate["predicted"][:20] = 1 - candidate["predicted"][:20]
    wide = paired_bootstrap(candidate, baseline, metric)
    copies = np.repeat(candidate, 10), np.repeat(baseline, 10)
    assert paired_bootstrap(*copies, metric, np.repeat(np.arange(200), 10)) == pytest.approx(wide, abs=0.6)
    seeds = np.stack([copies[0]] * 2), np.stack([copies[1]] * 2)
    assert paired_bootstrap(*seeds, metric, np.repeat(np.arange(200), 10)) == pytest.approx(wide, abs=0.6)
