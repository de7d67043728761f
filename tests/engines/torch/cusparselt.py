"""cuSPARSELt's operators for a CPU, where PyTorch has none: a weight is packed into the size that the card's library gives
it, kept values first and then two bits of place for each, and multiplied exactly."""

from contextlib import contextmanager

import torch

PLACES = torch.tensor([0, 2, 4, 6], dtype=torch.uint8)


def compress(weight):
    """A 2:4 weight [out, in] packed: out rows of in / 2 values and in / 8 bytes of places."""
    groups = weight.reshape(len(weight), -1, 4)
    assert ((groups != 0).sum(-1) <= 2).all(), "not a 2:4 weight"
    places = torch.argsort((groups == 0).to(torch.uint8), dim=-1, stable=True)[..., :2].sort(-1).values
    values = groups.gather(-1, places).reshape(len(weight), -1)
    fours = places.reshape(len(weight), -1, 4).to(torch.uint8)
    places = (fours << PLACES).sum(-1).to(torch.uint8)
    return torch.cat([values.contiguous().view(torch.uint8), places], 1).view(weight.dtype)


def restored(packed, depth):
    """The weight that was packed, bit for bit."""
    data = packed.contiguous().view(torch.uint8)
    values, places = data[:, : -depth // 8].contiguous().view(packed.dtype), data[:, -depth // 8 :]
    places = ((places[..., None] >> PLACES) & 3).reshape(len(packed), -1, 2).long()
    groups = torch.zeros(len(packed), depth // 4, 4, dtype=packed.dtype)
    return groups.scatter_(-1, places, values.reshape(len(packed), -1, 2)).reshape(len(packed), depth)


def multiply(  # the operator's own names
    compressed_A,
    dense_B,
    bias=None,
    alpha=None,
    out_dtype=None,
    transpose_result=False,
    alg_id=0,
    split_k=1,
    split_k_mode=-1,
):
    assert dense_B.shape[1] % 16 == 0, "the card's library takes tokens in multiples of 16"
    found = restored(compressed_A, dense_B.shape[0]).double() @ dense_B.double()
    found = found.float() if alpha is None else found.float() * alpha[:, None]
    found = found.to(out_dtype or dense_B.dtype)
    return found.t().contiguous() if transpose_result else found


def search(compressed_A, dense_B, bias=None, alpha=None, out_dtype=None, transpose_result=False):
    multiply(compressed_A, dense_B, bias, alpha, out_dtype, transpose_result)
    return 2


@contextmanager
def on_a_cpu():
    """PyTorch with these operators on a CPU."""
    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl("_cslt_compress", compress, "CPU")
        library.impl("_cslt_sparse_mm", multiply, "CPU")
        library.impl("_cslt_sparse_mm_search", search, "CPU")
        yield
