"""How much of an engine's weights is 2:4, by hand."""

import numpy as np

from optkit.engines.sparse import sparse_share


def test_whole_weights_and_groups_are_counted() -> None:
    sparse = np.tile(np.array([0, 3, 0, 5], np.int8), (8, 4))  # [out, in]: 32 groups
    dense = np.ones((2, 9), np.float32)  # 4 groups and a rest that is none
    dense[0, :3] = 0
    assert sparse_share([sparse, dense]) == {
        "sparse_weights": 1,
        "stored_weights": 2,
        "sparse_groups_kept": round(33 / 36, 6),
    }


def test_the_other_axis_is_not_sparse() -> None:
    sparse = np.tile(np.array([0, 3, 0, 5], np.int8), (8, 4))
    assert sparse_share([sparse.T])["sparse_weights"] == 0


def test_without_whole_groups_nothing_is_sparse() -> None:
    assert sparse_share([np.zeros((4, 3))]) == {"sparse_weights": 0, "stored_weights": 1, "sparse_groups_kept": None}
    assert sparse_share([])["sparse_groups_kept"] is None
