"""Entities from logits: words and pieces, windows joined, what is served."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from optkit.tasks import entities
from optkit.tasks.entities import ALL, FIRST, Entities, Entity, ServedEntities
from optkit.tasks.served import NOWHERE, OFFSETS, TextSettings
from optkit.tasks.spans import positions

TAGS = ["O", "B-per", "I-per", "B-loc", "I-loc"]


def offsets(*pairs: tuple[int, int]) -> entities.Offsets:
    starts, ends = np.array([(NOWHERE, NOWHERE), *pairs, (NOWHERE, NOWHERE)], np.int32).T
    return starts, ends


def logits(*classes: int, confident: float = 10.0) -> np.ndarray:
    """A row per piece, and one of O on either side."""
    return confident * np.eye(len(TAGS), dtype=np.float32)[[0, *classes, 0]]


def words(text: str) -> list[str]:
    """The words of a text whose every character is a piece."""
    pieces = offsets(*((place, place + 1) for place in range(len(text))))
    units = entities.units_of(entities.stripped([pieces], text), text, FIRST)
    return [text[start:end] for start, end in units]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ada B. Lovelace's", "Ada|B|.|Lovelace|'|s"),
        ("naïve  co-op\t3.5%", "naïve|co|-|op|3|.|5|%"),
        ("हिन्दी भाषा", "हिन्दी|भाषा"),
        ("cafe\u0301 x", "cafe\u0301|x"),
        ("東京タワーへ 行く", "東|京|タ|ワ|ー|へ|行|く"),
        ("BMW製 한국어", "BMW|製|한국어"),
        ("❤\ufe0f ok", "❤\ufe0f|ok"),
        ("@paul_w", "@|paul|_|w"),
    ],
)
def test_words(text: str, expected: str) -> None:
    assert words(text) == expected.split("|")


def test_units_are_the_first_pieces_or_all_of_them() -> None:
    text = "Bonn Ulm..."
    pieces = offsets((0, 2), (2, 4), (4, 8), (8, 11))  # one with the blank before it, one of three words
    windows = entities.stripped([pieces], text)
    assert entities.units_of(windows, text, FIRST).tolist() == [[0, 4], [5, 8], [8, 11]]
    assert entities.units_of(windows, text, ALL).tolist() == [[0, 2], [2, 4], [5, 8], [8, 11]]


def test_several_pieces_of_one_character_are_one_unit() -> None:
    text = "🙂 a"
    windows = entities.stripped([offsets((0, 1), (0, 1), (0, 1), (2, 3))], text)
    for pieces in (FIRST, ALL):
        units = entities.units_of(windows, text, pieces)
        assert units.tolist() == [[0, 1], [2, 3]]
        assert entities.joined([logits(1, 2, 2, 3)], windows, units).argmax(-1).tolist() == [1, 3]


def test_a_text_without_words_has_no_entities() -> None:
    windows = entities.stripped([offsets()], " ")
    units = entities.units_of(windows, " ", FIRST)
    assert units.shape == (0, 2)
    assert entities.read(entities.joined([logits()], windows, units), units, " ", TAGS) == []


def test_each_unit_is_read_where_it_has_most_context() -> None:
    """Two windows of five pieces that share three; the one in the middle is as far from the edge in both."""
    text = "a b c d e f g"
    place = [(at, at + 1) for at in range(0, len(text), 2)]
    windows = [offsets(*place[:5]), offsets(*place[2:])]
    units = entities.units_of(windows, text, FIRST)
    found = entities.joined([logits(1, 1, 1, 1, 1), logits(3, 3, 3, 3, 3)], windows, units)
    assert found.argmax(-1).tolist() == [1, 1, 1, 1, 3, 3, 3]
    swapped = entities.joined([logits(3, 3, 3, 3, 3), logits(1, 1, 1, 1, 1)], windows[::-1], units)
    assert swapped.argmax(-1).tolist() == [1, 1, 1, 3, 3, 3, 3]


def test_a_window_that_begins_within_a_word_adds_no_unit() -> None:
    text = "abcd ef"
    windows = [offsets((0, 1), (1, 2), (2, 4)), offsets((1, 2), (2, 4), (5, 7))]
    assert entities.units_of(windows, text, FIRST).tolist() == [[0, 4], [5, 7]]


def test_entities_with_their_span_and_score() -> None:
    text = "  Ada B. in Bonn"
    units = np.array([[2, 5], [6, 7], [7, 8], [9, 11], [12, 16]])
    shares = np.array([[1, 8, 1, 0, 0], [0, 0, 6, 4, 0], [0, 0, 9, 1, 0], [9, 0, 0, 0, 1], [4, 0, 0, 6, 0]]) / 10
    rows = np.log(np.maximum(shares, 1e-12))
    first, second = entities.read(rows, units, text, TAGS)
    assert first[:4] == ("per", "Ada B.", 2, 8) and first.score == pytest.approx((0.8 + 0.6 + 0.9) / 3)
    assert second[:4] == ("loc", "Bonn", 12, 16) and second.score == pytest.approx(0.6)


def served(text: str, classes: list[int], pieces: entities.Offsets, labels: list[str] = TAGS) -> Entities:
    settings = TextSettings(
        "token_classification", ("text",), {}, 16, labels=tuple(labels), more={"pieces": FIRST, "tags": TAGS}
    )
    beside = dict(zip(OFFSETS, (side[None] for side in pieces), strict=True)) | {"text": np.array([text.encode()], object)}
    outputs = ServedEntities().answer(logits(*classes)[None], beside, settings)
    assert {name: array.dtype.kind for name, array in outputs.items()} == {
        "entity": "O",
        "type": "O",
        "score": "f",
        "span": "i",
    }
    (answer,) = ServedEntities().decode(outputs, labels)
    return answer


def test_what_is_served() -> None:
    answer = served("Ada in Köln", [1, 0, 3], offsets((0, 3), (4, 6), (7, 11)))
    assert str(answer) == "Ada [per]; Köln [loc]"
    assert answer.shown() == "per: Ada (score 1.00, characters 0 to 3)\nloc: Köln (score 1.00, characters 7 to 11)"
    nothing = served("in", [0], offsets((0, 2)))
    assert (str(nothing), nothing.shown(), nothing.found) == ("no entities", "no entities", ())


def test_the_models_own_names_of_types_are_served() -> None:
    own = ["O", "b_PERS", "i_PERS", "B-LOCATION", "I-LOCATION"]
    assert str(served("Ada in Köln", [1, 0, 3], offsets((0, 3), (4, 6), (7, 11)), own)) == "Ada [PERS]; Köln [LOCATION]"


def test_the_score_is_finite_however_sure_the_model_is() -> None:
    units = np.array([[0, 1]])
    found = entities.read(np.array([[0.0, 1e4, 0, 0, 0]]), units, "a", TAGS)
    assert found == [Entity("per", "a", 0, 1, 1.0)]
    assert json.dumps(found)


def test_a_tokenizer_of_bytes_and_one_of_words_find_the_same(tokenizer: BertTokenizerFast) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({letter: at for at, letter in enumerate(alphabet)}, []))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    text = "ada in köln, ❤️"
    for one in (PreTrainedTokenizerFast(tokenizer_object=raw), tokenizer):
        encoded = one(text, return_offsets_mapping=True)
        windows = entities.stripped(list(positions(encoded, 0)), text)
        units = entities.units_of(windows, text, FIRST)
        assert [text[start:end] for start, end in units][:4] == ["ada", "in", "köln", ","]
