"""What an engine of compiled code is given is looked at before."""

import numpy as np
import pytest

from optkit.core.errors import InputError
from optkit.engines.checked_feed import checked, of_one_shape

RECORD = {"inputs": ["b", "a"], "longest": 5, "tables": {"a": 3}}
FINE = {"a": np.array([[0, 2]]), "b": np.array([[7, -1]], np.int32), "c": np.zeros(9)}


def test_inputs_come_in_the_engines_order_as_int64():
    found = checked(FINE, RECORD)
    assert [one.tolist() for one in found] == [[[7, -1]], [[0, 2]]] and {one.dtype for one in found} == {np.dtype(np.int64)}
    assert list(of_one_shape(FINE, RECORD)) == ["b", "a"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # copied into the memory of another shape, it would be repeated without a word
        ({"a": np.array([[0], [2]])}, r"found inputs \{'b': \[1, 2\], 'a': \[2, 1\]\}"),
        ({"a": np.array([0, 2]), "b": np.array([0, 2])}, "expected all of one shape"),
        ({"a": np.zeros((0, 2)), "b": np.zeros((0, 2))}, "without a 0"),
        ({"a": np.zeros((1, 6)), "b": np.zeros((1, 6))}, "found 6 tokens, the engine takes 5 at most"),
        ({"a": np.array([[0, 3]])}, "a: found numbers from 0 to 3, the model has embeddings for 0 to 2"),
        ({"a": np.array([[-1, 1]])}, "a: found numbers from -1 to 1"),
    ],
)
def test_what_would_end_a_process_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        checked({**FINE, **changes}, RECORD)


def test_an_engine_that_says_less_of_itself_is_fed_all_the_same():
    wide = {name: np.full((1, 9), 100) for name in "ab"}
    assert len(checked(wide, {"inputs": ["a", "b"], "longest": None})) == 2
