"""Matrices whose blocks of neighbouring input channels are few different ones, as product quantization makes them: a byte
for each block, and a table of the blocks (Stock et al. 2020, arXiv 1907.05686).

Nothing but NumPy is needed: engines are expanded within the server's processes too.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST = 256
"""Different blocks that a byte tells apart."""
SIZES = (8, 4)
"""Input channels of a block. Both hold whole groups of four, so that blocks can be 2:4."""
_LOOKED_AT = 4096
"""Blocks that tell of most matrices that they are not shared, without a look at the others."""
_ODD = np.uint64(0x9E3779B97F4A7C15)
"""Multiplier of a hash: 2^64 over the golden ratio."""


class Coded(NamedTuple):
    """A matrix as codes and the blocks that they stand for."""

    codes: NDArray[np.uint8]
    """[out, in / block]."""
    blocks: NDArray[Any]
    """Different blocks, [at most 256, block], of the matrix's type."""


def find(weight: NDArray[Any], sizes: tuple[int, ...] = SIZES) -> Coded | None:
    """Find the codes of a matrix, bit for bit.

    Args:
        weight: [out, in], of numbers of 1, 2 or 4 bytes, in any order in memory.
        sizes: input channels of a block to try, in this order.

    Returns:
        Codes and blocks; None where there are more than 256 different blocks, or too few blocks for half the space to be
        saved.
    """
    for size in sizes:
        if weight.ndim == 2 and weight.size and weight.shape[1] % size == 0:
            rows = -(-_LOOKED_AT * size // weight.shape[1])
            few = _unique(weight[:: max(1, weight.shape[0] // rows)], size)
            if few is not None and (found := _unique(weight, size)) is not None and _saves(found, weight):
                return found
    return None


def expand(codes: NDArray[np.uint8], blocks: NDArray[Any]) -> NDArray[Any]:
    """Return the matrix [out, in] that `find` coded."""
    return blocks[codes].reshape(len(codes), codes.shape[1] * blocks.shape[1])


def _saves(found: Coded, weight: NDArray[Any]) -> bool:
    return found.codes.nbytes + found.blocks.nbytes <= weight.nbytes / 2


def _unique(weight: NDArray[Any], size: int) -> Coded | None:
    """Return the codes of a matrix; None where it has more than 256 different blocks."""
    blocks = np.ascontiguousarray(weight).reshape(-1, size)
    words = blocks.view(np.uint32)
    hashes = np.zeros(len(words), np.uint64)
    for column in words.T:
        hashes = (hashes ^ column) * _ODD
    different, first, codes = np.unique(hashes, return_index=True, return_inverse=True)
    if len(different) > MOST or not np.array_equal(words[first][codes], words):
        return None  # the latter where two blocks have one hash
    return Coded(codes.astype(np.uint8).reshape(len(weight), -1), blocks[first])
