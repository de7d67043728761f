"""Texts that are cut before they are tokenised have the features of the whole texts; what is absurd is refused."""

import random

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from optkit.serving.backend.batching import Refusal
from optkit.serving.backend.encoding import Encoder, encoded
from optkit.serving.backend.shortening import LONGEST, Shortener, TooLongError
from optkit.tasks import sample
from tests import tiny_families

from . import texts

TOKENIZERS = {
    "sample": sample.tokenizer,
    "letters": texts.letters,
    "as_letters": texts.as_letters,
    "byte_level": texts.byte_level,
    "unigrams": tiny_families.unigrams,
    "byte_pairs": tiny_families.bytes_pairs,
}
ODD = (
    "日本語",
    "Ünïcödé",
    "🙂",
    "e\u0301",
    "\u0301",
    "Σ",
    "[SEP]",
    "</s>",
    "don't",
    "a.b,c",
    "ﬁ",
    "\u00a0",
    "\n\n",
    " " * 30,
)


class Watched:
    """A tokenizer that keeps the longest text that it was given."""

    def __init__(self, tokenizer):
        self.tokenizer, self.longest = tokenizer, 0

    def encode(self, *given, **settings):
        self.longest = max(self.longest, *(len(text) for text in given))
        return self.tokenizer.encode(*given, **settings)

    def encode_batch(self, given):
        return [self.encode(*([one] if isinstance(one, str) else one)) for one in given]

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)


def encoder(folder, kind, pair, length):
    """An encoder for so many tokens, and the tokenizer that truncates whole texts."""
    task = texts.classification(folder / "data", pair)
    made = Encoder(texts.source(folder / "step", task, TOKENIZERS[kind]()))
    object.__setattr__(made.settings, "max_length", length)
    made.cutting.enable_truncation(length)
    return made


def text(rng):
    """Words of all kinds, of 5 to some 400 characters."""
    length, odd, words, size = rng.choice([5, 50, 150, 300, 400]), rng.random() ** 2, [], 0
    while size < length:
        kind = rng.random()
        word = "".join(rng.choices("abcdefghij0123", k=rng.randint(1, 9)))
        word = rng.choice(ODD) if kind < odd else "x" * rng.choice([99, 101, 300]) if kind > 0.98 else word
        words.append(word + rng.choice([" ", " ", " ", "  ", "\n", ""]))
        size += len(words[-1])
    return "".join(words)


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_features_are_those_of_the_whole_texts(kind, pair, tmp_path):
    rng, shorter = random.Random(f"{kind}{pair}"), 0
    for length in (32, 33):
        (tmp_path / str(length)).mkdir()
        made = encoder(tmp_path / str(length), kind, pair, length)
        for _ in range(30):
            given = tuple(text(rng) for _ in range(1 + pair))
            shorter += made._shortened(given) != given
            (found,), whole = made.features([given]), made.cutting.encode(*given)
            for part in ("ids", "type_ids", "attention_mask", "offsets", "sequence_ids"):
                assert getattr(found, part) == getattr(whole, part), part
    assert shorter > 10


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_megabytes_are_not_tokenised(kind, tmp_path):
    made = encoder(tmp_path, kind, False, 64)
    made.whole = watched = Watched(made.whole)
    made.shortener, made.cutting = Shortener(watched), Watched(made.cutting)
    long, expected = "some words of a text. " * 100_000, made.features([("some words of a text. " * 100,)])[0].ids
    assert made.features([(long,)])[0].ids == expected
    assert max(watched.longest, made.cutting.longest) < 10_000


@pytest.mark.slow
def test_of_a_pair_the_longer_text_loses_its_tokens(tmp_path):
    made = encoder(tmp_path, "letters", True, 64)  # 61 tokens of texts, an odd number
    for first, second in ((300, 299), (299, 300), (300, 300), (10, 9000), (9000, 10), (40, 9000), (7000, 300)):
        given = "ab " * first, "cd " * second
        assert made.features([given])[0].ids == made.cutting.encode(*given).ids, (first, second)


def refusal(made, *given):
    request = {name: np.array([[one.encode()]], object) for name, one in zip(made.settings.fields, given, strict=True)}
    return encoded(made, request, ["input_ids"])


def test_what_cannot_be_cut_is_refused_where_it_is_absurd(tmp_path):
    made = encoder(tmp_path, "letters", False, 64)
    for absurd in ("a" * 2_000_000, " " * 2_000_000, "日" * 200_000):
        found = refusal(made, absurd)
        assert isinstance(found, Refusal) and found.fault_of_request and f"first {LONGEST} characters" in found.reason
    assert refusal(made, "a" * (LONGEST - 1))["input_ids"].shape == (1, 8)  # [CLS] [UNK] [SEP]: one word, that is too long


def test_what_cannot_be_cut_is_limited_for_a_request_as_a_whole(tmp_path):
    made = encoder(tmp_path, "letters", False, 64)
    with pytest.raises(TooLongError):
        made.features([("a" * (LONGEST - 1),)] * 64)
    assert len(made.features([("a" * (LONGEST - 1),)] * 3)) == 3


def test_two_texts_of_which_nobody_knows_the_longer_one(tmp_path):
    made = encoder(tmp_path, "letters", True, 64)
    assert isinstance(refusal(made, "ab " * 100_000, "cd " * 100_000), Refusal)


def test_texts_are_cut_on_the_left_by_the_tokenizer_alone(tmp_path):
    made = encoder(tmp_path, "letters", False, 64)
    object.__setattr__(made.settings, "truncation_side", "left")
    assert made._shortened(("ab " * 2000,)) == ("ab " * 2000,)
    assert isinstance(refusal(made, "ab " * 100_000), Refusal)


def test_a_tokenizer_without_words_is_not_trusted():
    """Its tokens may reach across blanks."""
    pieces = [("<unk>", 0.0), *((letter, -5.0) for letter in "ab "), ("b a", -1.0)]
    across = Tokenizer(models.Unigram(pieces, 0))
    assert Shortener(across).beginning("a b " * 50, 10).whole
    with pytest.raises(TooLongError):
        Shortener(across).beginning("a b " * LONGEST, 10)
    across.pre_tokenizer = pre_tokenizers.Metaspace()
    assert not Shortener(across).beginning("a b " * 50, 10).whole
    across.add_tokens(["a b"])
    assert Shortener(across).beginning("a b " * 50, 10).whole


def test_questions_and_passages_of_megabytes_are_refused(tmp_path):
    made = Encoder(texts.source(tmp_path / "step", texts.questions(tmp_path / "data"), texts.letters()))
    object.__setattr__(made.settings, "max_windows", 8)
    made.whole = watched = Watched(made.whole)
    made.shortener, made.cutting = Shortener(watched), Watched(made.cutting)
    assert "found more than 39 tokens, expected at most 39" in refusal(made, "who is it " * 100_000, "a dog").reason
    assert "more than the 8 windows" in refusal(made, "who?", "the cab is big " * 100_000).reason
    assert max(watched.longest, made.cutting.longest) < LONGEST
