"""Weights that share blocks: what product quantization leaves (see `optkit.models.block_codes`). What holds, how such a
weight is stored, and how it is trained.

No codes are kept beside a model: they are read in its weights, whose equal blocks stay equal while they are trained.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from optkit.core.errors import GateError
from optkit.models import block_codes

log = logging.getLogger(__name__)
CODES, BLOCKS = ".block_codes", ".block_values"
"""Ends of the names under which a compressed weight is stored."""
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32}
_ROUNDING = 1e-4
"""How far apart rounding may take equal blocks while they are trained, relative to the largest weight."""


def matrices(model: nn.Module) -> dict[str, nn.Linear | nn.Embedding]:
    """Return the Linear modules and the embeddings inside a module, by name."""
    return {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear | nn.Embedding)}


def fits(weight: torch.Tensor, block: int, most: int = block_codes.MOST) -> bool:
    """Return whether a weight [out, in] has whole blocks, and so many that to share them saves half its space in FP32."""
    whole = weight.dim() == 2 and weight.shape[1] % block == 0
    return whole and weight.numel() // block + 4 * most * block <= 2 * weight.numel()


def find(weight: torch.Tensor, sizes: tuple[int, ...] = block_codes.SIZES) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the codes of a weight, uint8 [out, in / block], and its different blocks [at most 256, block]; None where
    `optkit.models.block_codes` finds none."""
    bits = _BITS.get(weight.element_size())
    if weight.dim() != 2 or bits is None:
        return None
    found = block_codes.find(weight.detach().cpu().contiguous().view(bits).numpy(), sizes)
    if found is None:
        return None
    return torch.from_numpy(found.codes), torch.from_numpy(found.blocks).view(weight.dtype)


def check(model: nn.Module, expected: Mapping[str, int], when: str, most: int = block_codes.MOST) -> None:
    """Raise unless weights share their blocks.

    Args:
        model: has them.
        expected: size of the blocks by the name of a Linear or an embedding.
        when: for the message.
        most: different blocks that a weight may have.

    Raises:
        GateError: naming each that does not.
    """
    parts = matrices(model)
    found = {name: find(parts[name].weight, (size,)) for name, size in expected.items()}
    broken = [name for name, coded in found.items() if coded is None or len(coded[1]) > most]
    if broken:
        lines = "".join(f"\n  {name}: more than {most} blocks of {expected[name]} differ" for name in broken)
        raise GateError(f"shared blocks are broken {when} in {len(broken)} of {len(expected)} weights:{lines}")


@contextmanager
def held(model: nn.Module) -> Iterator[None]:
    """Hold the shared blocks of a model while it is trained: each gets the mean gradient of all blocks that are equal to it,
    so that an optimiser that treats weights one by one moves them alike.

    What rounding has parted, as in vectors' last elements or between processes, is put together again at the end. A weight
    whose blocks are all equal is left alone: a branch that starts at zero has yet to train. Smaller blocks are looked for
    first: where these are few, their pairs are too, and stay equal with them.
    """
    sizes = tuple(sorted(block_codes.SIZES))
    coded = {
        name: (part.weight, find(part.weight, sizes)) for name, part in matrices(model).items() if part.weight.requires_grad
    }
    shared = {name: _Shared(weight, *found) for name, (weight, found) in coded.items() if found and len(found[1]) > 1}
    handles = [one.weight.register_hook(one) for one in shared.values()]
    if shared:
        log.info("%d weights share blocks of neighbouring input channels, and are trained so", len(shared))
    try:
        yield
        for one in shared.values():
            one.unite()
    finally:
        for handle in handles:
            handle.remove()


class _Shared:
    """A weight with shared blocks, and the hook on its gradient."""

    def __init__(self, weight: torch.Tensor, codes: torch.Tensor, blocks: torch.Tensor) -> None:
        self.weight, self.codes = weight, codes.flatten().long()
        self.counts = torch.bincount(self.codes, minlength=len(blocks)).unsqueeze(1)

    def __call__(self, gradient: torch.Tensor) -> torch.Tensor:
        """Put the mean of all equal blocks in the place of each; in place, as a new tensor of a large table takes longer."""
        if self.codes.device != gradient.device:
            self.codes, self.counts = self.codes.to(gradient.device), self.counts.to(gradient.device)
        gradient = gradient.contiguous()
        blocks = gradient.view(len(self.codes), -1)
        sums = blocks.new_zeros(len(self.counts), blocks.shape[1]).index_add_(0, self.codes, blocks)
        torch.index_select(sums / self.counts, 0, self.codes, out=blocks)
        return gradient

    @torch.no_grad()
    def unite(self) -> None:
        """Put the first of equal blocks in the place of all; what more than rounding has parted is left, for `check` to
        find."""
        codes, places = self.codes, torch.arange(len(self.codes), device=self.codes.device)
        first = torch.full_like(self.counts.flatten(), len(codes)).scatter_reduce_(0, codes, places, "amin")
        blocks = self.weight.detach().view(len(codes), -1)
        united = blocks[first.to(blocks.device)][codes.to(blocks.device)]
        if bool((united - blocks).abs().max() <= _ROUNDING * blocks.abs().max()):
            blocks.copy_(united)


def compress(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors with every weight that shares its blocks replaced by codes, a byte each, and the different blocks."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith("weight") and (coded := find(tensor)) is not None:
            found[name + CODES], found[name + BLOCKS] = coded
        else:
            found[name] = tensor
    return found


def restore(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The reverse of `compress`, bit for bit."""
    found = {name: tensor for name, tensor in tensors.items() if not name.endswith((CODES, BLOCKS))}
    for name, codes in tensors.items():
        if name.endswith(CODES):
            weight = name.removesuffix(CODES)
            found[weight] = tensors[weight + BLOCKS][codes.long()].flatten(1)
    return found
