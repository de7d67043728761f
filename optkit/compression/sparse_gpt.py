"""SparseGPT (Frantar & Alistarh 2023, arXiv 2301.00774) for 2:4: prunes weights and corrects those that stay, so that what a
Linear puts out moves least.

Layer by layer: what a layer reads comes from the layers before it as they are after their pruning. Model Optimizer's own
chooses the same masks and loses the correction.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from optkit.core.errors import InputError
from optkit.models.families import layers_of

log = logging.getLogger(__name__)
_BLOCK = 128  # channels that are corrected one by one; what follows them is corrected block by block, to the same numbers
_DAMPING = 0.01  # share of the mean of the Hessian's diagonal that is added to it, as in the paper


@torch.no_grad()
def prune(model: PreTrainedModel, linears: Mapping[str, nn.Linear], forward: Callable[[PreTrainedModel], None]) -> None:
    """Prune Linear modules of an encoder's layers to 2:4 in place.

    Args:
        model: has them.
        linears: by name.
        forward: runs examples through the model; called once for each layer.

    Raises:
        InputError: what a Linear reads is not finite.
    """
    for own in _by_layer(model, linears):
        for name, weight in _of_layer(model, own, forward).items():
            own[name].weight.copy_(weight)


@torch.no_grad()
def pruned_alone(
    model: PreTrainedModel, linears: Mapping[str, nn.Linear], forward: Callable[[PreTrainedModel], None]
) -> dict[str, torch.Tensor]:
    """Return the weights [out, in] of Linear modules, each pruned as if it were the only one; the model stays as it is.

    Arguments and errors as of `prune`.
    """
    found = dict[str, torch.Tensor]()
    for own in _by_layer(model, linears):
        found |= _of_layer(model, own, forward)
    return found


def _by_layer(model: PreTrainedModel, linears: Mapping[str, nn.Linear]) -> Iterator[dict[str, nn.Linear]]:
    number = layers_of(model).number
    for layer in sorted({number(name) or 0 for name in linears}):
        yield {name: linear for name, linear in linears.items() if number(name) == layer}


def _of_layer(
    model: PreTrainedModel, linears: Mapping[str, nn.Linear], forward: Callable[[PreTrainedModel], None]
) -> dict[str, torch.Tensor]:
    """Return the pruned weights of one layer's modules."""
    found = dict[str, torch.Tensor]()
    with _watched(model, linears) as hessians:
        forward(model)
    for name, linear in linears.items():
        size = linear.in_features
        hessian = hessians.get(name, torch.zeros(size, size, dtype=torch.float64))  # of one that nothing has reached
        if not bool(torch.isfinite(hessian).all()):
            raise InputError(f"{name}: what it reads is not finite; look for weights that are NaN or infinite")
        found[name] = pruned(linear.weight, hessian.to(linear.weight.device))
    log.info("SparseGPT: %d Linear modules of the layer of %s", len(found), next(iter(found)))
    return found


def pruned(weight: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """Return a weight with two zeros in each four consecutive channels and the others corrected for them.

    Args:
        weight: [out, in]; not changed.
        hessian: of the squared error of what the Linear puts out, X Xᵀ of what it reads, float64 [in, in].
    """
    left, inverse = weight.double(), _inverse_factor(hessian)
    for start in range(0, left.shape[1], _BLOCK):
        stop = start + _BLOCK
        errors = _prune_block(left[:, start:stop], inverse[start:stop, start:stop])
        left[:, stop:] -= errors @ inverse[start:stop, stop:]
    return left.to(weight.dtype)


def _prune_block(block: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Prune a block [out, channels] in place; return the error of each weight that went, over the factor's diagonal."""
    errors, scale = torch.zeros_like(block), factor.diagonal()
    for channel in range(block.shape[1]):
        if channel % 4 == 0:
            four = slice(channel, channel + 4)
            least = (block[:, four] / scale[four]).square().topk(2, largest=False).indices
            goes = torch.zeros_like(block[:, four], dtype=torch.bool).scatter_(1, least, True)
        drop = goes[:, channel % 4]
        errors[:, channel] = block[:, channel] * drop / scale[channel]
        block[:, channel:] -= errors[:, channel, None] * factor[channel, channel:]
        block[:, channel].masked_fill_(drop, 0.0)
    return errors


def _inverse_factor(hessian: torch.Tensor) -> torch.Tensor:
    """Upper Cholesky factor of the inverse of the damped Hessian; a channel that reads zeros alone counts as one."""
    damped = hessian.clone()
    diagonal = damped.diagonal()
    diagonal[diagonal == 0] = 1.0
    diagonal += _DAMPING * diagonal.mean()
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)


@contextmanager
def _watched(model: PreTrainedModel, linears: Mapping[str, nn.Linear]) -> Iterator[dict[str, torch.Tensor]]:
    """Sum X Xᵀ of what each Linear reads of real tokens, float64 [in, in] by name."""
    sums: dict[str, torch.Tensor] = {}
    mask: torch.Tensor | None = None

    def start(_: nn.Module, given: Any, named: Mapping[str, torch.Tensor]) -> None:
        nonlocal mask
        mask = named.get("attention_mask")

    def add(name: str, read: torch.Tensor) -> None:
        tokens = read[mask > 0] if mask is not None and mask.shape == read.shape[:2] else read.flatten(0, -2)
        product = (tokens.float().T @ tokens.float()).double()
        sums[name] = sums[name] + product if name in sums else product

    handles = [model.register_forward_pre_hook(start, with_kwargs=True)]
    for name, linear in linears.items():
        handles.append(linear.register_forward_pre_hook(lambda _, given, name=name: add(name, given[0])))
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()
