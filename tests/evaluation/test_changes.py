"""How answers differ from the baseline's, by hand."""

import numpy as np
import pytest

from optkit.evaluation.changes import answers, of_examples, summary
from optkit.evaluation.evaluate import evaluate


def answered(decisions: list[int], nll: list[float], shares: list[list[float]]) -> dict[str, np.ndarray]:
    widths, owners = np.full(len(shares), len(shares[0]), np.int32), np.arange(len(shares), dtype=np.int32)
    log_shares = np.log(np.array(shares, np.float32)).ravel()
    return {
        "decisions": np.array(decisions, np.uint64),
        "nll": np.array(nll),
        "log_shares": log_shares,
        "widths": widths,
        "owners": owners,
    }


OWN = answered([0, 1, 1, 0], [0.1, 0.2, 0.3, 0.4], [[0.5, 0.5], [0.2, 0.8], [0.2, 0.8], [0.6, 0.4]])
BASELINE = answered([0, 1, 0, 0], [0.1, 0.2, 0.1, 0.5], [[0.5, 0.5], [0.2, 0.8], [0.6, 0.4], [0.6, 0.4]])
KL = 0.6 * np.log(0.6 / 0.2) + 0.4 * np.log(0.4 / 0.8)


def test_changes_of_each_example() -> None:
    found = of_examples(OWN, BASELINE)
    assert found["kl"] == pytest.approx([0, 0, KL, 0], abs=1e-6)
    assert found["flips"].tolist() == [0, 0, 100, 0] and found["nll_change"] == pytest.approx([0, 0, 0.2, -0.1])


def test_their_means_and_intervals() -> None:
    found = summary([OWN], [BASELINE], None)
    assert found["kl"] == pytest.approx(KL / 4, abs=1e-6) and found["flips"] == 25.0
    assert found["nll_change"] == pytest.approx(0.025)
    low, high = found["flips_ci95"]
    assert low == 0 and 50 < high <= 100
    assert summary([OWN], [BASELINE], np.array([0, 0, 1, 1]))["flips_ci95"] == [0.0, 50.0]
    assert summary([OWN, BASELINE], [BASELINE, BASELINE], None)["flips"] == 12.5
    assert summary([OWN], [OWN], None)["kl_ci95"] == [0.0, 0.0]


def test_what_a_task_has_not() -> None:
    assert set(summary([{}], [{}], None).values()) == {None}
    values = {"decisions": OWN["decisions"]}
    found = summary([values, {}], [values, values], None)
    assert found["flips"] is None and found["flips_ci95"] is None


@pytest.mark.slow
def test_decisions_are_those_of_the_task(answering, tiny_task) -> None:
    features = answering["fp32"].features
    logits = [np.array([0.0, 1.0])] * len(features)
    predictions = tiny_task.predict(features, logits)
    found = answers(tiny_task, features, logits, predictions)
    assert len(set(found["decisions"].tolist())) == 1
    other = answers(tiny_task, features, logits, [0, *predictions[1:]])
    assert of_examples(other, found)["flips"].tolist() == [100.0, *[0.0] * (len(features) - 1)]


@pytest.mark.slow
def test_models_are_compared_by_their_answers(answering, tiny_task) -> None:
    exact, quantised = (evaluate(answering[precision].loaded, tiny_task) for precision in ("fp32", "int8"))
    found = quantised.changes(exact)
    low, high = found["kl_ci95"]
    assert 0 < low < found["kl"] < high < 0.1 and 0 <= found["flips"] < 20
    assert exact.changes(exact)["kl"] == 0.0 and exact.changes(exact)["flips_ci95"] == [0.0, 0.0]
