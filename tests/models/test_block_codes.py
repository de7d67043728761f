"""Codes of matrices whose blocks are few different ones: by hand, and back to the bit."""

import numpy as np
import pytest

from optkit.models import block_codes


def test_codes_and_blocks_by_hand() -> None:
    one, two = [1, 2, 3, 4], [1, 2, 3, -4]
    weight = np.array([[*one, *two, *one, *one]] * 8, np.float32)
    found = block_codes.find(weight, (4,))
    assert found is not None and found.codes.dtype == np.uint8 and found.codes.shape == (8, 4)
    assert sorted(map(tuple, found.blocks.tolist())) == [(1, 2, 3, -4), (1, 2, 3, 4)]
    first, second = (found.blocks.tolist().index([*map(float, block)]) for block in (one, two))
    assert found.codes[0].tolist() == [first, second, first, first]
    assert np.array_equal(block_codes.expand(*found), weight)


def shared(kind: str, size: int, different: int = 256, out: int = 96, inner: int = 64) -> np.ndarray:
    """A matrix of blocks drawn from `different` ones, all of which are there."""
    generator = np.random.default_rng(0)
    blocks = np.unique(generator.integers(0, 256, (2 * different, size * np.dtype(kind).itemsize), np.uint8), axis=0)
    count = out * inner // size
    codes = np.concatenate([np.arange(different), generator.integers(0, different, count - different)])
    return generator.permutation(blocks)[:different][codes].view(kind).reshape(out, inner)


@pytest.mark.parametrize("kind", ["i1", "u1", "u2", "f4"])
@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("transposed", [False, True])
def test_every_bit_comes_back(kind: str, size: int, transposed: bool) -> None:
    weight = shared(kind, size, out=512)
    given = np.ascontiguousarray(weight.T).T if transposed else weight
    found = block_codes.find(given)
    assert found is not None and found.blocks.shape == (256, size) and found.blocks.dtype == kind
    assert block_codes.expand(*found).tobytes() == weight.tobytes()


def test_zeros_of_both_signs_are_different() -> None:
    weight = np.zeros((64, 64), np.float32)
    weight[1::2] = -0.0
    found = block_codes.find(weight)
    assert found is not None and len(found.blocks) == 2
    assert block_codes.expand(*found).tobytes() == weight.tobytes()


def test_one_block_too_many_is_not_shared() -> None:
    weight = shared("f4", 4, 256)
    assert block_codes.find(weight, (4,)) is not None
    weight[-1, -4:] = 1e9
    assert block_codes.find(weight, (4,)) is None
    late = shared("f4", 4, 256, out=4096)  # the first look at some of the rows does not meet it
    late[-1, -1] = 12345
    assert block_codes.find(late, (4,)) is None


def test_what_would_save_too_little_is_not_shared() -> None:
    few = shared("f4", 4, 128, out=16, inner=32)  # 128 blocks, each once: codes and blocks are more than the matrix
    assert block_codes.find(few) is None
    assert block_codes.find(np.ones((4, 6), np.float32)) is None, "no whole blocks"
    assert block_codes.find(np.ones(64, np.float32)) is None, "no matrix"
    assert block_codes.find(np.ones((0, 8), np.float32)) is None
