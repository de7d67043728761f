"""Rows divided in two by groups."""

from hypothesis import given
from hypothesis import strategies as st

from optkit.tasks.data.division import divide


def test_groups_stay_whole_and_none_is_larger_than_its_room() -> None:
    groups = [[0]] * 6 + [[1]] * 2 + [[2]] * 2
    for seed in range(5):
        assert divide(groups, 4, seed) == (list(range(6)), [6, 7, 8, 9], [])
        assert len(divide(groups, 3, seed).part) == 2
    assert divide(groups, 1).part == []


def test_rows_of_both_sides_are_left_out() -> None:
    groups = [[0], [0], [0, 1], [1]]
    assert divide(groups, 1) == ([0, 1], [3], [2])


def test_seeds_draw_other_groups() -> None:
    groups = [[row] for row in range(50)]
    assert divide(groups, 5, 0) == divide(groups, 5, 0) != divide(groups, 5, 1)


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), max_size=40), st.integers(0, 40), st.integers(0, 3))
def test_every_row_is_somewhere_and_no_group_on_both_sides(groups: list[list[int]], most: int, seed: int) -> None:
    found = divide(groups, most, seed)
    assert sorted([*found.rest, *found.part, *found.left_out]) == list(range(len(groups)))
    sides = [{group for row in rows for group in groups[row]} for rows in (found.rest, found.part)]
    assert not sides[0] & sides[1] and len(found.part) <= most
