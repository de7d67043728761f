"""Augmentation: words become their neighbours in the embedding, special tokens and padding stay."""

import numpy as np
import pytest
import torch

from optkit.compression.augment import Neighbours
from optkit.models.loading import LoadedModel
from optkit.tasks.base import Feed

ROWS, WIDTH = 200, 16


@pytest.fixture
def feed(tiny_model: LoadedModel) -> Feed:
    """[CLS], ten words, [SEP], padding."""
    words = np.random.default_rng(0).integers(5, len(tiny_model.tokenizer), (ROWS, WIDTH))
    words[:, 0], words[:, 11], words[:, 12:] = 2, 3, 0
    return {"input_ids": words, "attention_mask": (words != 0).astype(np.int64), "token_type_ids": words * 0}


def test_special_tokens_and_padding_stay(tiny_model: LoadedModel, feed: Feed) -> None:
    changed = Neighbours(tiny_model, 0.99)(feed)
    fixed = np.isin(feed["input_ids"], tiny_model.tokenizer.all_special_ids)
    assert np.array_equal(changed["input_ids"][fixed], feed["input_ids"][fixed])
    assert not np.isin(changed["input_ids"][~fixed], tiny_model.tokenizer.all_special_ids).any(), "no word becomes special"
    for name in ("attention_mask", "token_type_ids"):
        assert changed[name] is feed[name]


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_share_of_words_that_change(share: float, tiny_model: LoadedModel, feed: Feed) -> None:
    before = feed["input_ids"].copy()
    changed = Neighbours(tiny_model, share)(feed)["input_ids"]
    words = before[:, 1:11]
    assert (changed[:, 1:11] != words).mean() == pytest.approx(share, abs=0.04)  # of 2000 words
    assert np.array_equal(feed["input_ids"], before), "the feed itself stays"


def test_the_same_seed_draws_the_same_words_and_another_does_not(tiny_model: LoadedModel, feed: Feed) -> None:
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(Neighbours(tiny_model, 0.5)(feed)["input_ids"])
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])


def test_every_call_draws_anew(tiny_model: LoadedModel, feed: Feed) -> None:
    neighbours = Neighbours(tiny_model, 0.5)
    assert not np.array_equal(neighbours(feed)["input_ids"], neighbours(feed)["input_ids"])


def test_neighbours_are_the_nearest_by_cosine(tiny_model: LoadedModel) -> None:
    """Word n points at n degrees, with a length that says nothing: the eight nearest are the eight next to it."""
    table = tiny_model.model.get_input_embeddings().weight
    count = len(table)
    angles = torch.deg2rad(torch.arange(count).float())
    with torch.no_grad():
        table.zero_()
        table[:, 0], table[:, 1] = angles.cos(), angles.sin()
        table *= torch.linspace(1, 9, count).flip(0)[:, None]
    middle = 11
    ids = np.full((1, 400), middle)
    drawn = Neighbours(tiny_model, 0.99)({"input_ids": ids})["input_ids"]
    assert set(drawn[drawn != middle].tolist()) == {7, 8, 9, 10, 12, 13, 14, 15}


def test_without_a_word_drawn_nothing_changes(tiny_model: LoadedModel, feed: Feed) -> None:
    assert np.array_equal(Neighbours(tiny_model, 1e-9)(feed)["input_ids"], feed["input_ids"])


def test_rows_that_are_no_word_are_never_drawn(tiny_model: LoadedModel) -> None:
    """Tables are often padded to a round size."""
    words = len(tiny_model.tokenizer)
    tiny_model.model.resize_token_embeddings(words + 13)
    ids = np.random.default_rng(0).integers(5, words, (50, 16))
    assert Neighbours(tiny_model, 0.9)({"input_ids": ids})["input_ids"].max() < words
