"""What an engine without padding needs to know of a batch: where its tokens are."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

INPUTS = ("packed_tokens", "packed_places", "packed_ends")
"""Index of each existing token in the padded batch, int64 [tokens]; the way back, int64 [batch, sequence]; where sequences
end, int32 [batch + 2]: the last one is of tokens that only fill up."""
_STEPS = 32
"""Sizes that the number of tokens is filled up to, for each doubling: each is compiled and recorded once."""
_LEAST = 64
WHOLE = 16
"""The number of tokens is a multiple of this, as products by cuSPARSELt want it."""


class Packing(NamedTuple):
    """What a packed graph needs to know of a batch."""

    tokens: NDArray[np.int64]
    places: NDArray[np.int64]
    ends: NDArray[np.int32]

    @classmethod
    def of(cls, mask: NDArray[Any]) -> "Packing":
        """Say where the tokens of a batch are.

        Args:
            mask: attention mask [batch, sequence]; a row without any token counts as one without padding, as a softmax
                that is masked everywhere does.
        """
        exists = np.asarray(mask, bool)
        exists = exists | ~exists.any(axis=1, keepdims=True)
        tokens, lengths = np.flatnonzero(exists), exists.sum(axis=1)
        places = np.zeros(exists.shape, np.int64)
        places[exists] = np.arange(len(tokens))
        size = filled_up(len(tokens))
        ends = np.concatenate([[0], np.cumsum(lengths), [size]]).astype(np.int32)
        return cls(np.pad(tokens, (0, size - len(tokens))), places, ends)


def filled_up(tokens: int) -> int:
    """Return the number of tokens that is computed for a number that exists."""
    step = max(_LEAST, 1 << max(0, (tokens - 1).bit_length() - _STEPS.bit_length() + 1))
    return -(-tokens // step) * step
