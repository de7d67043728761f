"""Scales that a checkpoint brings: all that its encoder would have, or none."""

from collections.abc import Collection, Mapping

import torch

from optkit.core.errors import InputError
from optkit.models.checkpoint_tensors import listed


def check(amax: Mapping[str, torch.Tensor], linears: Collection[str], source: str) -> None:
    """Raise `InputError` unless each Linear of the encoder has finite, positive scales of its input and of its weight.

    Args:
        amax: scales by quantiser's name.
        linears: names of the encoder's Linear modules.
        source: name of the checkpoint, for messages.
    """
    expected = [f"{name}.{kind}_quantizer" for name in linears for kind in ("input", "weight")]
    if lacking := [name for name in expected if name not in amax]:
        raise InputError(
            f"--model {source}: has scales of {len(amax)} quantisers and none for {len(lacking)} of the {len(expected)} "
            f"that its encoder would have: {listed(lacking)}. Calibrate all of them, or take the scales out"
        )
    wrong = [name for name in expected if not bool(torch.isfinite(amax[name]).all() and (amax[name] >= 0).all())]
    wrong += [name for name in expected if name not in wrong and not bool(amax[name].any())]
    if wrong:
        raise InputError(
            f"--model {source}: scales that are not finite and positive: {listed(wrong)}; calibrate again, or take the "
            "scales out of the checkpoint"
        )
