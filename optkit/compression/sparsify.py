"""2:4 sparsity with NVIDIA's Model Optimizer: prune the trained model, then repeat its training with the mask fixed.

The mask is what is not zero: pruning writes zeros into the weights, and `retrain` holds them, in this stage and in
every later one (Mishra et al. 2021, arXiv 2104.08378, section 4).
"""

import io
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout

import torch
from torch import nn
from transformers import PreTrainedModel

from optkit.compression.context import Context
from optkit.compression.retrain import retrain
from optkit.core.errors import InputError
from optkit.models import two_to_four
from optkit.models.families import encoder_linears, prunable
from optkit.models.loading import Loaded
from optkit.recipe.stages import Sparsify

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Model Optimizer warns of each transformers release it has not been tested with
    import modelopt.torch.sparsity as mts

Forward = Callable[[PreTrainedModel], None]
_MODES = {"magnitude": "sparse_magnitude", "sparsegpt": "sparsegpt"}


def apply(loaded: Loaded, stage: Sparsify, context: Context) -> list[dict[str, float]]:
    """Prune every Linear of the encoder that can be 2:4, by masks from its checkpoint or by the criterion; train again.

    Returns:
        The training's history, empty without epochs.

    Raises:
        InputError: no Linear can be 2:4, or masks from elsewhere do not fit.
        GateError: a group has lost its zeros.
    """
    stage.checked()
    linears = _prunable(loaded.model)
    if loaded.masks:
        outside = {name for name, _ in loaded.model.named_modules()} - linears.keys()  # as the pooler, which ASP prunes too
        apply_masks(linears, {name: mask for name, mask in loaded.masks.items() if name not in outside})
    else:
        prune(loaded.model, linears, stage.criterion, lambda model: context.run_examples(model, stage.calibration_examples))
    two_to_four.check(linears, "after pruning")
    history = retrain(loaded, stage, context, "sparse retraining")
    two_to_four.check(linears, "after sparse retraining")
    return history


def _prunable(model: PreTrainedModel) -> dict[str, nn.Linear]:
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


def apply_masks(linears: Mapping[str, nn.Linear], masks: Mapping[str, torch.Tensor]) -> None:
    """Set to zero what masks from elsewhere, as apex ASP's, leave out.

    Args:
        linears: that are to be sparse.
        masks: {name of a Linear: [out, in]}, nonzero where a weight stays.

    Raises:
        InputError: naming every mask that is missing, of another shape, for another module, or not 2:4.
    """
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


def prune(model: PreTrainedModel, linears: Mapping[str, nn.Linear], criterion: str, forward: Forward) -> None:
    """Let Model Optimizer choose the masks, and write the zeros.

    Args:
        model: pruned in place.
        linears: its modules that are to be sparse, by name.
        criterion: `magnitude` or `sparsegpt`.
        forward: runs examples through the model, for SparseGPT.
    """
    rules: dict = {"*": None} | {name: {} for name in linears}
    settings = {"forward_loop": forward, "verbose": False}
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules that it leaves alone
        mts.sparsify(model.eval(), [(_MODES[criterion], {"nn.Linear": rules})], settings)
        mts.export(model)
    for linear in linears.values():
        _zero(linear, linear.weight.detach() != 0)


def _zero(linear: nn.Linear, keep: torch.Tensor) -> None:
    """Write zeros, all of them positive, so that a compressed weight loads back bit for bit."""
    with torch.no_grad():
        linear.weight.masked_fill_(~keep.to(linear.weight.device), 0.0)
