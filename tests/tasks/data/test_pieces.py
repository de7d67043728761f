"""Which texts are pieces of others, by hand and against looking at every pair."""

from hypothesis import given
from hypothesis import strategies as st

from optkit.tasks.data.pieces import LEAST, Pieces, sentences_of, words_of


def test_words_are_those_of_any_case_and_punctuation() -> None:
    assert words_of("It 's NOT , well...") == words_of("it's not well") == ("it", "s", "not", "well")
    assert words_of("良い映画 2x") == ("良", "い", "映", "画", "2x")
    assert words_of(" ... ") == ("...",)


def test_pieces_belong_to_the_whole_texts_that_hold_them() -> None:
    texts = ["one two three four five", "two three four", "Two, three, four!", "six seven eight two three four", "two three"]
    assert sentences_of(texts) == [[0], [0, 1], [0, 1], [1], [2]]


def test_equal_texts_belong_together_however_short() -> None:
    assert sentences_of(["a", "b", "A ."]) == [[0], [1], [0]]
    assert sentences_of([]) == []


TEXTS = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=9).map(tuple), min_size=1, max_size=12)


@given(TEXTS)
def test_as_looking_at_every_pair(texts: list[tuple[str, ...]]) -> None:
    index = Pieces(texts)
    for whole in texts:
        spans = {whole[start:end] for start in range(len(whole)) for end in range(start + LEAST, len(whole) + 1)}
        assert index.within(whole) == spans & set(texts)
