"""2:4 structured sparsity itself: of every four consecutive input channels at most two weights are not zero
(Mishra et al. 2021, arXiv 2104.08378). What holds, what can hold, and how such a weight is stored in half the space.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from optkit.core.errors import GateError

OUT_MULTIPLE, IN_MULTIPLE = 8, 16
"""Sparse tensor cores take weights [out, in] in these multiples: the rule of NVIDIA's ASP."""
VALUES, INDICES = ".values_2to4", ".indices_2to4"
"""Ends of the names under which a compressed weight is stored."""


def fits(weight: torch.Tensor) -> bool:
    """Whether the hardware can take a weight [out, in] as 2:4."""
    return weight.dim() == 2 and weight.shape[0] % OUT_MULTIPLE == 0 and weight.shape[1] % IN_MULTIPLE == 0


def groups_kept(weight: torch.Tensor) -> float:
    """Share of groups of 4 consecutive input channels with at least 2 zeros, in a weight [out, in].

    A last group of fewer than 4 channels is not counted: the hardware never sees it as a group.
    """
    whole = weight.shape[1] // 4 * 4
    if not whole:
        return 0.0
    zeros = (weight[:, :whole].reshape(weight.shape[0], whole // 4, 4) == 0).sum(-1)
    return float((zeros >= 2).float().mean())


def is_sparse(weight: torch.Tensor) -> bool:
    """Whether a weight [out, in] is 2:4 in every group, and of a shape that the hardware takes."""
    return fits(weight) and groups_kept(weight) == 1.0


def sparse_linears(linears: Mapping[str, nn.Linear]) -> dict[str, nn.Linear]:
    """Return the Linear modules whose weight is 2:4 but not all zero: a branch that starts at zero has yet to train."""
    return {name: linear for name, linear in linears.items() if is_sparse(linear.weight) and bool(linear.weight.any())}


def check(linears: Mapping[str, nn.Linear], when: str) -> None:
    """Raise unless every Linear is 2:4.

    Args:
        linears: by name, those that should be.
        when: for the message.

    Raises:
        GateError: naming each that is not, with its groups.
    """
    broken = {name: groups_kept(linear.weight) for name, linear in linears.items() if not is_sparse(linear.weight)}
    if broken:
        lines = [f"  {name}: {kept:.4%} of its groups of four have two zeros, expected all" for name, kept in broken.items()]
        raise GateError(
            f"2:4 sparsity is broken {when} in {len(broken)} of {len(linears)} Linear modules:\n" + "\n".join(lines)
        )


@contextmanager
def held(linears: Mapping[str, nn.Linear]) -> Iterator[None]:
    """Hold the zeros of these weights while they are trained: they get no gradient, and AdamW moves nothing without one
    (its weight decay scales, and zero stays zero)."""
    weights = [linear.weight for linear in linears.values() if linear.weight.requires_grad]
    handles = [weight.register_hook(_only((weight.detach() != 0).to(weight.dtype))) for weight in weights]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _only:
    """A gradient hook that keeps what a mask of ones and zeros keeps; a CPU multiplies by Booleans four times as slowly."""

    def __init__(self, keep: torch.Tensor) -> None:
        self.keep = keep

    def __call__(self, gradient: torch.Tensor) -> torch.Tensor:
        if self.keep.device != gradient.device:
            self.keep = self.keep.to(gradient.device)
        return gradient * self.keep


def compress(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors with every 2:4 weight replaced by its values [out, in / 2] and 2-bit indices, four to a byte [out, in / 8]."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith("weight") and is_sparse(tensor) and not _has_negative_zeros(tensor):
            found[name + VALUES], found[name + INDICES] = _pack(tensor)
        else:
            found[name] = tensor
    return found


def restore(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The reverse of `compress`, bit for bit."""
    found = {name: tensor for name, tensor in tensors.items() if not name.endswith((VALUES, INDICES))}
    for name, values in tensors.items():
        if name.endswith(VALUES):
            weight = name.removesuffix(VALUES)
            found[weight] = _unpack(values, tensors[weight + INDICES])
    return found


def _has_negative_zeros(weight: torch.Tensor) -> bool:
    """Return whether a weight has negative zeros, as `weight * mask` leaves; compression would restore them as positive."""
    return bool((torch.signbit(weight) & (weight == 0)).any())


def _pack(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    groups = weight.reshape(weight.shape[0], -1, 4)
    # the places of what is not zero come first; a stable sort leaves them in their order
    places = torch.argsort((groups == 0).to(torch.uint8), dim=-1, stable=True)[..., :2].sort(-1).values
    values = groups.gather(-1, places).reshape(weight.shape[0], -1)
    fours = places.reshape(weight.shape[0], -1, 4).to(torch.uint8)
    return values.contiguous(), (fours << torch.tensor([0, 2, 4, 6], dtype=torch.uint8)).sum(-1).to(torch.uint8)


def _unpack(values: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    places = (indices[..., None] >> torch.tensor([0, 2, 4, 6], dtype=torch.uint8)) & 3
    rows = values.shape[0]
    groups = torch.zeros(rows, values.shape[1] // 2, 4, dtype=values.dtype)
    groups.scatter_(-1, places.reshape(rows, -1, 2).long(), values.reshape(rows, -1, 2))
    return groups.reshape(rows, -1)
