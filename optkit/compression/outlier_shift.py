"""Outlier shift: move the channels of LayerNorm's outputs to the middle of their range, without changing what is computed.

A few channels are far off centre and take most of the range of an activation's single scale. What is taken from
LayerNorm's bias, the Linear modules that read it and those whose output it is added to are given back in their own biases,
so that the graph and its speed stay the same (the shift of Wei et al. 2023, "Outlier Suppression+", arXiv 2304.09145).
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from optkit.compression.dataflow import Reads, norms, reads
from optkit.models.families import encoder_linears
from optkit.tasks.base import Feed

log = logging.getLogger(__name__)
WORTH = 0.75
"""Share of a norm's range that may remain after the shift: where nothing is far off centre, it harms more than it gains."""


def shift(model: PreTrainedModel, feed: Feed, forward: Callable[[PreTrainedModel], Any]) -> str:
    """Centre every channel of the norms' outputs that the encoder's Linear modules read, in place.

    A norm whose range would become less than a quarter smaller stays as it is; so does one whose output has a reader without
    a bias, or one that is neither a Linear nor a sum with a Linear's output.

    Args:
        model: float model.
        feed: a batch of its inputs, to find what reads what.
        forward: runs examples through the model, to find the ranges.

    Returns:
        What could not be moved, with reasons, for people; empty where all could.
    """
    inputs = {name: torch.from_numpy(array).to(model.device) for name, array in feed.items()}
    encoder = encoder_linears(model).keys()
    found = {name: own for name, own in reads(model.eval(), inputs).items() if own.readers & encoder}
    able = {name: own for name, own in found.items() if not own.hindrance}
    with _watched(model, able) as ranges:
        forward(model)
    for name, own in able.items():
        least, largest = ranges[name]
        if narrows(least, largest):
            _move(model, name, own, (least + largest) / 2)
    if len(able) == len(found) > 0:
        return ""
    hindered = [f"{name} ({own.hindrance})" for name, own in found.items() if own.hindrance]
    why = (
        f"not {'; '.join(hindered[:3])}{', …' * (len(hindered) > 3)}"
        if hindered
        else "Linear modules read no norm that adds a bias"
    )
    told = f"outlier shift: {len(able)} of the {len(found)} norms that quantised Linear modules read can be centred: {why}"
    log.warning("%s", told)
    return told


def narrows(least: torch.Tensor, largest: torch.Tensor) -> bool:
    """Tell whether centred channels need a single range that is much smaller, from each one's least and largest value."""
    return float((largest - least).max()) / 2 <= WORTH * float(torch.maximum(-least, largest).max())


@torch.no_grad()
def _move(model: PreTrainedModel, norm: str, own: Reads, middle: torch.Tensor) -> None:
    """Take a constant [channels] from a norm's output, and give it back in the biases of what reads it."""
    middle = middle.double()
    for name in own.readers:
        linear: Any = model.get_submodule(name)
        linear.bias += linear.weight.double() @ middle
    for name in own.residuals:
        model.get_submodule(name).bias += middle  # type: ignore[operator]
    model.get_submodule(norm).bias -= middle  # type: ignore[operator]


@contextmanager
def _watched(model: PreTrainedModel, names: Mapping[str, Any]) -> Iterator[dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Keep the least and the largest value [channels] of some norms' outputs while examples run."""
    ranges: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def keep(name: str, output: torch.Tensor) -> None:
        least, largest = output.detach().flatten(0, -2).aminmax(dim=0)
        before = ranges.get(name, (least, largest))
        ranges[name] = (torch.minimum(before[0], least), torch.maximum(before[1], largest))

    known = norms(model)
    hooks = [known[name].register_forward_hook(lambda *given, name=name: keep(name, given[-1])) for name in names]
    try:
        yield ranges
    finally:
        for hook in hooks:
            hook.remove()
