"""How much of an engine's stored weights is 2:4 sparse: read in the artefact itself.

A CPU's kernels multiply the zeros like any other weight: there it says that the mask arrived, not that it is faster.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def sparse_share(weights: Iterable[NDArray[Any]]) -> dict[str, Any]:
    """Say what share of the weights that an engine multiplies with is 2:4.

    Args:
        weights: [out, in], as the products read them.

    Returns:
        `sparse_weights`: how many have two zeros in every group of four input channels; `stored_weights`: of how many;
        `sparse_groups_kept`: the share of all groups that have.
    """
    kept = [_groups_with_two_zeros(weight) for weight in weights]
    groups = sum(len(each) for each in kept)
    return {
        "sparse_weights": sum(bool(len(each)) and bool(each.all()) for each in kept),
        "stored_weights": len(kept),
        "sparse_groups_kept": round(float(sum(each.sum() for each in kept)) / groups, 6) if groups else None,
    }


def _groups_with_two_zeros(weight: NDArray[Any]) -> NDArray[Any]:
    """Return for each whole group of four input channels whether at least two are zero, bool [groups]."""
    whole = weight.shape[1] // 4 * 4
    return ((weight[:, :whole].reshape(-1, 4) == 0).sum(axis=1) >= 2) if whole else np.zeros(0, bool)
