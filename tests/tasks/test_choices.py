"""What models choose among, and how far two are apart, by hand and as PyTorch has it."""

import json

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from optkit.tasks.choices import Choices, divergence, shares
from optkit.tasks.collate import IGNORED
from optkit.tasks.registry import load


def lines(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def task_of(name: str, rows: str, write, ending: str = "jsonl"):
    return load(name, write({f"train.{ending}": rows, f"dev.{ending}": rows}))


def drawn(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_classes_by_hand(write, tokenizer) -> None:
    task = task_of("classification", "text,label\na,x\nb,y\n", write, "csv")
    features = task.encode("dev", tokenizer)
    even, sure = np.log([[0.5, 0.5], [0.5, 0.5]]), np.log([[0.8, 0.2], [0.5, 0.5]])
    own, baseline = (shares(task, features, logits) for logits in (even, sure))
    assert own["nll"] == pytest.approx(-np.log([0.5, 0.5])) and baseline["nll"] == pytest.approx(-np.log([0.8, 0.5]))
    expected = 0.8 * np.log(0.8 / 0.5) + 0.2 * np.log(0.2 / 0.5)
    assert divergence(own, baseline) == pytest.approx([expected, 0.0], abs=1e-6)
    assert divergence(baseline, own)[0] == pytest.approx(0.5 * np.log(0.5 / 0.8) + 0.5 * np.log(0.5 / 0.2), abs=1e-6)


def test_each_label_is_a_decision(write, tokenizer) -> None:
    rows = lines({"text": "a", "labels": ["x", "z"]}, {"text": "b", "labels": []}, {"text": "c", "labels": ["y"]})
    task = task_of("multi_label", rows, write)
    features, logits, others = task.encode("dev", tokenizer), drawn((3, 3), 0), drawn((3, 3), 1)
    own, baseline = (shares(task, features, side) for side in (logits, others))
    right = torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0]])
    loss = torch.nn.functional.binary_cross_entropy_with_logits(torch.from_numpy(logits), right, reduction="none")
    assert own["nll"] == pytest.approx(loss.mean(1).numpy(), abs=1e-6)
    p, q = (1 / (1 + np.exp(-side.astype(float))) for side in (others, logits))
    expected = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert divergence(own, baseline) == pytest.approx(expected.mean(1), abs=1e-6)


def test_tags_of_the_pieces_that_get_one(write, tokenizer) -> None:
    rows = lines({"tokens": ["ab", "c"], "tags": ["B-x", "O"]}, {"tokens": ["d"], "tags": ["O"]})
    task = task_of("token_classification", rows, write)
    features = task.encode("dev", tokenizer)
    logits = [drawn((length, len(task.labels)), length) for length in features["length"][:]]
    found = shares(task, features, logits)
    labels = [torch.tensor(row) for row in features["labels"][:]]
    assert found["widths"].tolist() == [3] * 3 and found["owners"].tolist() == [0, 0, 1]
    losses = [
        cross_entropy(torch.from_numpy(row), tags, ignore_index=IGNORED) for row, tags in zip(logits, labels, strict=True)
    ]
    assert found["nll"] == pytest.approx([float(loss) for loss in losses], abs=1e-6)
    special = [np.where((np.array(tags) == IGNORED)[:, None], 9.0, row) for row, tags in zip(logits, labels, strict=True)]
    assert divergence(shares(task, features, special), found).tolist() == [0.0, 0.0]


def test_where_answers_start_and_end(write, squad_json, tokenizer) -> None:
    rows = squad_json("a b c", ("1", "q", ["b c"]), ("2", "r", ["a"]))
    task = task_of("qa", rows, write, "json")
    features = task.encode("dev", tokenizer)
    logits, others = ([drawn((length, 2), seed + length) for length in features["length"][:]] for seed in (0, 50))
    own, baseline = shares(task, features, logits), shares(task, features, others)
    output = {"start_logits": torch.from_numpy(logits[0][None, :, 0]), "end_logits": torch.from_numpy(logits[0][None, :, 1])}
    targets = {name: torch.tensor(features[name][:1]) for name in task.targets}
    assert own["nll"][0] == pytest.approx(float(task.loss(output, targets)), abs=1e-6)
    pair = (log_softmax(torch.from_numpy(side[0]).T, -1) for side in (logits, others))
    expected = kl_div(*pair, log_target=True, reduction="batchmean")
    assert divergence(own, baseline)[0] == pytest.approx(float(expected), abs=1e-6)


def test_documents_are_relevant_by_their_grade(write, tokenizer) -> None:
    rows = lines(
        *({"query": "q", "document": document, "label": label} for document, label in (("a", 2), ("b", 1), ("c", 0)))
    )
    task = task_of("reranking", rows, write)
    features, logits = task.encode("dev", tokenizer), drawn((3, 1), 0)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.from_numpy(logits[:, 0]), torch.tensor([1.0, 0.5, 0.0]), reduction="none"
    )
    assert shares(task, features, logits)["nll"] == pytest.approx(loss.numpy(), abs=1e-6)


def test_values_have_no_choices(write, tokenizer) -> None:
    task = task_of("regression", "text,label\na,1\nb,2\n", write, "csv")
    assert shares(task, task.encode("dev", tokenizer), drawn((2, 1), 0)) == {}
    assert divergence({}, {}) is None


def test_a_task_that_says_nothing_has_its_distributions_alone(write, tokenizer) -> None:
    task = task_of("classification", "text,label\na,x\nb,y\n", write, "csv")
    task.choices = super(type(task), task).choices
    found = shares(task, task.encode("dev", tokenizer), drawn((2, 2), 0))
    assert set(found) == {"log_shares", "widths", "owners"} and found["owners"].tolist() == [0, 1]


def test_the_mean_is_over_all_windows_of_an_example() -> None:
    class Windows:
        def choices(self, features, logits):
            return (Choices(row[None], np.eye(2)[[0]]) for row in logits)

    features = {"example": [1, 0, 1]}
    found = shares(Windows(), features, np.log([[0.5, 0.5], [0.9, 0.1], [0.25, 0.75]]))
    assert found["nll"] == pytest.approx([-np.log(0.9), -(np.log(0.5) + np.log(0.25)) / 2])
    other = shares(Windows(), {"example": [1, 0, 0]}, np.zeros((3, 2)))
    assert divergence(found, other) is None
