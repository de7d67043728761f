"""The calibrator `kl`: each activation's amax by the divergence that its rounding and clipping cause in the model's answers.

To second order, KL(float ‖ quantised) of an activation's error δ is ½ δᵀJᵀFJδ, with J the Jacobian of the logits and F
the Fisher matrix of their distribution. A random vector v with E[vvᵀ] = F makes it the mean of ½ (vᵀJδ)²: one backward
pass a batch gives vᵀJ for all activations, and each candidate costs one product with it. No labels are needed.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from optkit.compression.fake_quantization import INT8_MAX
from optkit.core.progress import bar
from optkit.tasks.base import Feed, TaskKind

CANDIDATES = tuple(2 ** (-step / 8) for step in range(29))
"""Shares of the largest absolute value that are tried as amax, from all of it to an eleventh."""
_PAIRS = 4 * 384**2
"""Most pairs of tokens, batch · sequence², whose activations are kept for a backward pass."""
Seen = dict[int, tuple[torch.Tensor, torch.Tensor, list[str]]]
"""For each tensor that Linear modules read: itself, the copy that they get, and their names."""


def best_amax(
    model: PreTrainedModel,
    feeds: Iterable[Feed],
    task: TaskKind,
    groups: Mapping[str, Collection[str]],
    largest: Mapping[str, float],
) -> dict[str, float]:
    """Return the amax of each Linear's input with the least divergence.

    Args:
        model: in eval mode, computing in float.
        feeds: batches of inputs; no labels.
        task: gives the distributions in logits.
        groups: for each quantised Linear those that read the same tensor, itself among them; they get the same amax.
        largest: for each Linear, the largest absolute value of its input.
    """
    shared = {name: max(largest[other] for other in groups[name]) for name in groups}
    divergence: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros(len(CANDIDATES), dtype=torch.float64))
    signs = torch.Generator().manual_seed(0)
    pieces = [piece for feed in feeds for piece in _pieces(feed)]
    with _inputs_watched(model, groups) as seen, bar("calibrating", len(pieces)) as advance:
        for piece in pieces:
            seen.clear()
            for names, values, gradient in _gradients(model, piece, task, seen, signs):
                first = min(groups[names[0]])
                divergence[first] += _divergences(values, gradient, shared[first])
            advance(1)
    return {name: shared[name] * CANDIDATES[int(divergence[min(groups[name])].argmin())] for name in groups}


def _pieces(feed: Feed) -> Iterator[Feed]:
    """Yield the rows of a batch, as many at a time as a backward pass has memory for."""
    rows, length = feed["input_ids"].shape
    count = max(1, _PAIRS // length**2)
    for start in range(0, rows, count):
        yield {name: array[start : start + count] for name, array in feed.items()}


def _gradients(
    model: PreTrainedModel, feed: Feed, task: TaskKind, seen: Seen, signs: torch.Generator
) -> Iterator[tuple[list[str], torch.Tensor, torch.Tensor]]:
    """Yield the readers of each tensor, its values, and the gradient that reaches it through them alone."""
    inputs = {name: torch.from_numpy(array).to(model.device) for name, array in feed.items()}
    with torch.enable_grad():
        logits = task.logits(model(**inputs))
        score = _fisher_score(task, logits, inputs.get("attention_mask"), signs)
        found = torch.autograd.grad(score, [copy for _, copy, _ in seen.values()], allow_unused=True)
    for (values, _, names), gradient in zip(seen.values(), found, strict=True):
        if gradient is not None:
            yield names, values.detach(), gradient


def _fisher_score(task: TaskKind, logits: torch.Tensor, mask: torch.Tensor | None, signs: torch.Generator) -> torch.Tensor:
    """Return vᵀ logits with E[vvᵀ] the Fisher matrix of the logits' distributions; the identity where they have none."""
    rows = task.distributions(logits, mask)
    if rows is None:
        values = task.unpadded(logits, mask)
        return (_drawn(values, signs) * values).sum()
    probability = rows.detach().float().softmax(-1)
    root = probability.sqrt() * _drawn(rows, signs)
    weights = root - probability * root.sum(-1, keepdim=True)
    return (weights * rows).sum()


def _drawn(like: torch.Tensor, signs: torch.Generator) -> torch.Tensor:
    """Return 1 and -1 at random; the same in every process."""
    return (torch.randint(2, like.shape, generator=signs) * 2 - 1).to(like)


def _divergences(values: torch.Tensor, gradient: torch.Tensor, largest: float) -> torch.Tensor:
    """Return the divergence from each candidate, summed over the tokens of a batch as if their errors were independent.

    Summed within a text first, what counts is the luck of one scale with tokens that come again and again, which is gone as
    soon as the layers before are quantised too.

    Args:
        values, gradient: [..., channels].
        largest: absolute value.
    """
    found = []
    for share in CANDIDATES:
        scale = max(largest * share, torch.finfo(torch.float32).tiny) / INT8_MAX
        error = (values / scale).round_().clamp_(-INT8_MAX - 1, INT8_MAX).mul_(scale).sub_(values)
        found.append(error.mul_(gradient).sum(-1).double().square().sum())
    return torch.stack(found).cpu()


@contextmanager
def _inputs_watched(model: PreTrainedModel, linears: Collection[str]) -> Iterator[Seen]:
    """Give all those of some Linear modules that read a tensor one copy of it, by which its gradient is known."""
    seen: Seen = {}

    def watch(name: str, given: tuple[Any, ...]) -> tuple[Any, ...]:
        if id(given[0]) not in seen:
            copy = given[0].clone()
            seen[id(given[0])] = given[0], copy if copy.requires_grad else copy.requires_grad_(), []
        _, copy, names = seen[id(given[0])]
        names.append(name)
        return (copy, *given[1:])

    hooks = [
        model.get_submodule(name).register_forward_pre_hook(lambda _, given, name=name: watch(name, given))
        for name in linears
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
