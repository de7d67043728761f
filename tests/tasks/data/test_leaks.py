"""What dev has in common with train, by hand and against looking at every pair."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optkit.tasks.data.leaks import Leaks, Side, find


def alone(*texts: str) -> Side:
    return Side([(text,) for text in texts], texts)


def test_each_row_counts_once_as_the_first_that_it_is() -> None:
    train = alone("One, two: three four five six seven eight nine!", "a film of four words and more", "bad film")
    dev = alone(
        "one two three four five six seven eight nine",
        "one two three four five six seven eight ten",
        "three four five",
        "a film of four words and more and less of it",
        "a film of four words and more stands here among very many others that nobody has seen yet",
        "bad film again",
        "nothing of it",
    )
    assert find(train, dev) == Leaks(equal=1, near=1, pieces=2, grouped=0, rows=7)


def test_pairs_share_a_text() -> None:
    train = Side([("who is it", "a b c"), ("who", "d")], ["who is it", "who"])
    dev = Side([("who", "e"), ("who is it", "a b c"), ("what is", "d")], ["who", "who is it", "what is"])
    assert find(train, dev) == Leaks(equal=1, near=0, pieces=1, grouped=0, rows=3)


def test_groups_on_both_sides_are_counted() -> None:
    train, dev = alone("a", "b")._replace(groups=["1", "2"]), alone("c", "d", "e")._replace(groups=["1", "1", "3"])
    found = find(train, dev)
    assert found.grouped == 2
    assert list(found.sentences()) == [
        "2 of 3 rows (66.7%) are of groups that train has rows of; split by group: optkit split"
    ]


def test_nothing_in_common_is_not_said() -> None:
    assert list(find(alone("a b c d"), alone("e f g h")).sentences()) == []


def test_other_order_and_words_twice_are_near() -> None:
    assert find(alone("good bad"), alone("good", "good bad bad", "bad good")).near == 2


ROWS = st.lists(st.sets(st.integers(0, 9), min_size=1), min_size=1, max_size=8)


def near_by_all_pairs(train: list[set[int]], dev: list[set[int]]) -> int:
    return sum(row not in train and any(10 * len(row & other) >= 8 * len(row | other) for other in train) for row in dev)


@given(ROWS, ROWS)
def test_no_near_row_is_missed(train: list[set[int]], dev: list[set[int]]) -> None:
    sides = (alone(*(" ".join(map(str, sorted(row))) for row in rows)) for rows in (train, dev))
    assert find(*sides).near == near_by_all_pairs(train, dev)


@pytest.mark.parametrize("size", [30, 39, 40, 45, 60])
def test_no_near_row_is_missed_at_the_border_of_long_ones(size: int) -> None:
    random = Random(size)
    train = [set(random.sample(range(90), size)) for _ in range(20)]
    dev = []
    for row in train:
        kept = random.sample(sorted(row), random.randint(int(0.75 * size), size - 1))
        dev.append({*kept, *random.sample(range(100, 200), random.randint(0, 4))})
    sides = (alone(*(" ".join(map(str, sorted(row))) for row in rows)) for rows in (train, dev))
    expected = near_by_all_pairs(train, dev)
    assert find(*sides).near == expected and 0 < expected < 20
