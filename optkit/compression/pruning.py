"""2:4 pruning: what of an encoder can be, masks from elsewhere or by a criterion, and the zeros."""

import logging
from collections.abc import Callable, Collection, Mapping

import torch
from torch import nn
from transformers import PreTrainedModel

from optkit.compression import sparse_gpt
from optkit.compression.kept import work
from optkit.core.errors import InputError
from optkit.models import two_to_four
from optkit.models.families import encoder_linears, prunable

log = logging.getLogger(__name__)
Forward = Callable[[PreTrainedModel], None]


def prunable_linears(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The Linear modules of the encoder that can be 2:4.

    Raises:
        InputError: there are none.
    """
    found = prunable(model)
    if not found:
        linears = encoder_linears(model).values()
        shapes = sorted({f"{linear.out_features} × {linear.in_features}" for linear in linears})
        raise InputError(
            f"{type(model).__name__}: none of its {len(linears)} encoder Linear modules can be 2:4 (out × in: "
            f"{', '.join(shapes)}); expected out in multiples of {two_to_four.OUT_MULTIPLE} and in of "
            f"{two_to_four.IN_MULTIPLE}. Leave Sparsify out, or choose another hidden_size"
        )
    return found


def report_dense(name: str, model: nn.Module) -> None:
    """Warn of each Linear of the encoder that cannot be 2:4, and of their share of its multiply-adds.

    Raises:
        InputError: none can be.
    """
    linears, fitting = encoder_linears(model), prunable(model)
    if not linears:
        raise InputError(
            f"{type(model).__name__} has no Linear modules in its encoder's layers (such as SqueezeBERT, whose products are "
            "convolutions): there is nothing that could be 2:4. Run its baseline alone, or choose another encoder"
        )
    dense = {at: linear for at, linear in linears.items() if at not in fitting}
    lines = [f"  {at}: {_why(linear)}" for at, linear in dense.items()]
    rule = f"2:4 takes out in multiples of {two_to_four.OUT_MULTIPLE} and in of {two_to_four.IN_MULTIPLE}"
    if not fitting:
        raise InputError(
            f"none of the {len(linears)} Linear modules in the encoder can be 2:4 ({rule}); leave Sparsify out, or choose "
            "another hidden_size:\n" + "\n".join(lines)
        )
    if dense:
        share = sum(map(work, dense.values())) / sum(map(work, linears.values()))
        log.warning(
            "%s: %d of %d Linear modules stay dense, %.0f %% of the encoder's multiply-adds with weights (%s):\n%s",
            *(name, len(dense), len(linears), 100 * share, rule, "\n".join(lines)),
        )


def apply_masks(model: PreTrainedModel, masks: Mapping[str, torch.Tensor], dense: Collection[str] = ()) -> None:
    """Set to zero what masks from elsewhere, as apex ASP's, leave out.

    Args:
        model: pruned in place.
        masks: {name of a Linear: [out, in]}, nonzero where a weight stays.
        dense: names of modules that stay as they are.

    Raises:
        InputError: no Linear can be 2:4, or naming every mask that is missing, of another shape, for another module, or
            not 2:4.
    """
    linears = _to_prune(model, dense)
    outside = {name for name, _ in model.named_modules()} - linears.keys()  # as the pooler, which ASP prunes too
    masks = {name: mask for name, mask in masks.items() if name not in outside}
    mistakes = [f"{name}: a mask for a module that is not there" for name in masks.keys() - linears.keys()]
    for name, linear in linears.items():
        mask = masks.get(name)
        if mask is None:
            mistakes.append(f"{name}: no mask")
        elif mask.shape != linear.weight.shape:
            mistakes.append(f"{name}: mask {list(mask.shape)}, expected {list(linear.weight.shape)}")
        elif not two_to_four.is_sparse(mask):
            kept = two_to_four.groups_kept(mask)
            mistakes.append(f"{name}: {kept:.4%} of the mask's groups of four are 2:4, expected all")
    if mistakes:
        raise InputError("the checkpoint's masks do not fit the model:\n  - " + "\n  - ".join(sorted(mistakes)))
    for name, linear in linears.items():
        _zero(linear, masks[name] != 0)


def prune(model: PreTrainedModel, criterion: str, forward: Forward, dense: Collection[str] = ()) -> None:
    """Choose the weights that go, and write the zeros.

    Args:
        model: pruned in place.
        criterion: `magnitude`, or `sparsegpt`, which also corrects the weights that stay.
        forward: runs examples through the model, for SparseGPT.
        dense: names of modules that stay as they are.

    Raises:
        InputError: no Linear can be 2:4, or what one reads is not finite.
    """
    linears = _to_prune(model, dense)
    if criterion == "sparsegpt":
        sparse_gpt.prune(model.eval(), linears, forward)
    for linear in linears.values():
        _zero(linear, _largest_two(linear.weight.detach()))


def pruned_alone(model: PreTrainedModel, criterion: str, forward: Forward) -> dict[str, torch.Tensor]:
    """Return the weight of each Linear that can be 2:4, pruned as if it alone were; arguments and errors as of `prune`."""
    linears = prunable_linears(model)
    if criterion == "sparsegpt":
        return sparse_gpt.pruned_alone(model.eval(), linears, forward)
    weights = {name: linear.weight.detach() for name, linear in linears.items()}
    return {name: weight * _largest_two(weight) for name, weight in weights.items()}


def _to_prune(model: PreTrainedModel, dense: Collection[str]) -> dict[str, nn.Linear]:
    return {name: linear for name, linear in prunable_linears(model).items() if name not in dense}


def _largest_two(weight: torch.Tensor) -> torch.Tensor:
    """Return which weights [out, in] are among the two largest of their four."""
    groups = weight.abs().unflatten(1, (-1, 4))
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(2, groups.topk(2).indices, True).flatten(1)


def _zero(linear: nn.Linear, keep: torch.Tensor) -> None:
    """Write zeros, all of them positive, so that a compressed weight loads back bit for bit."""
    with torch.no_grad():
        linear.weight.masked_fill_(~keep.to(linear.weight.device), 0.0)


def _why(linear: nn.Linear) -> str:
    out, inner = linear.out_features, linear.in_features
    return f"out {_in_multiples(out, two_to_four.OUT_MULTIPLE)}, in {_in_multiples(inner, two_to_four.IN_MULTIPLE)}"


def _in_multiples(size: int, of: int) -> str:
    return f"{size} = {size // of} × {of} + {size % of}"
