"""What reads the output of each LayerNorm, found in the graph that autograd keeps of one forward pass.

Nothing is asked of a family's names: modules are marked where values enter and leave them, and the graph between the marks
says what was done with the values.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.autograd import Function
from transformers import PreTrainedModel

from optkit.models.families import linears

_OUTPUT = "the model's output"
_WHAT_IT_IS = {
    "MulBackward0": "a multiplication",
    "AddBackward0": "a sum with something else than a Linear's output",
    "SliceBackward0": "a slice",
    "SelectBackward0": "a single token's read",
}
"""Names of autograd's nodes, in words for people."""


@dataclass
class Reads:
    """What the output of a norm is used for, over all calls."""

    readers: set[str] = field(default_factory=set)
    """Linear modules that multiply it."""
    residuals: set[str] = field(default_factory=set)
    """Linear modules whose output it is added to, before anything else is done with either."""
    hindrance: str = ""
    """Reason why a constant cannot be taken from it and given back to those; empty where it can."""


class _Mark(Function):
    """Identity whose node in the graph knows where it stands."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, place: tuple[str, str]) -> torch.Tensor:  # type: ignore[override]
        """Return the values; `place` is "enters", "leaves" or "norm", and a module's name."""
        ctx.place = place
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        """Return the gradient as it is."""
        return gradient, None


def norms(model: nn.Module) -> dict[str, nn.Module]:
    """Return the norms that add a bias, one for each channel, by name: LayerNorm, and what families have in its place."""
    return {
        name: part
        for name, part in model.named_modules()
        if "Norm" in type(part).__name__ and all(_is_vector(part, kind) for kind in ("weight", "bias"))
    }


def reads(model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> dict[str, Reads]:
    """Return what the output of each norm is used for; a norm that is not called is left out.

    Args:
        model: in eval mode; runs once.
        inputs: a batch of its inputs, on its device.
    """
    with _marked(model), torch.enable_grad():
        output = model(**inputs)
    nodes, consumers = _graph([value for value in _tensors(output) if value.grad_fn is not None])
    places = defaultdict[tuple[str, str], list[Any]](list)
    for node in nodes:
        if place := _place(node):
            places[place].append(node)
    return {name: _reads(own, places, consumers, model) for (kind, name), own in places.items() if kind == "norm"}


def _reads(
    own: list[Any], places: Mapping[tuple[str, str], list[Any]], consumers: Mapping[Any, list[Any]], model: Any
) -> Reads:
    """Return what the calls of one norm, whose nodes are given, are used for."""
    found, added = Reads(), set[Any]()
    for node in own:
        for consumer in consumers[node]:
            place, other = _place(consumer), _other(consumer, node)
            if place and place[0] == "enters":
                found.readers.add(place[1])
            elif other is not None and consumers[other] == [consumer]:
                found.residuals.add(_place(other)[1])  # type: ignore[index]
                added.add(other)
            else:
                found.hindrance = f"read by {_WHAT_IT_IS.get(_name(consumer), _name(consumer))}"
    for name in sorted(found.readers):
        if not all(entered.next_functions[0][0] in own for entered in places["enters", name]):
            found.hindrance = f"{name} reads other tensors too"
    for name in sorted(found.residuals):
        if not added.issuperset(places["leaves", name]):
            found.hindrance = f"what {name} puts out is used elsewhere too"
    unbiased = [name for name in sorted(found.readers | found.residuals) if model.get_submodule(name).bias is None]
    if unbiased:
        found.hindrance = f"{unbiased[0]} has no bias"
    return found


def _other(consumer: Any, node: Any) -> Any:
    """Return the node of a Linear's output that a consumer adds a norm's output to, one to one; None if it does not."""
    if _name(consumer) != "AddBackward0" or consumer._saved_alpha != 1:
        return None
    others = [before for before, _ in consumer.next_functions if before is not node]
    place = _place(others[0]) if len(others) == 1 else None
    return others[0] if place and place[0] == "leaves" else None


def _graph(outputs: list[torch.Tensor]) -> tuple[list[Any], dict[Any, list[Any]]]:
    """Return all nodes before some outputs, and of each node those that read its output; the name of the end for outputs."""
    consumers = defaultdict[Any, list[Any]](list)
    seen: dict[Any, None] = {}  # keeps the nodes, whose identity ends with their Python object
    pending: list[Any] = [value.grad_fn for value in outputs]
    for node in pending:
        consumers[node].append(_OUTPUT)
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen[node] = None
        for before, _ in node.next_functions:
            if before is not None:
                consumers[before].append(node)
                pending.append(before)
    return list(seen), consumers


@contextmanager
def _marked(model: PreTrainedModel) -> Iterator[None]:
    """Mark what enters and leaves every Linear and what leaves every norm until the block ends; frozen weights count too."""
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    hooks = []
    for name, linear in linears(model).items():
        hooks.append(linear.register_forward_pre_hook(lambda _, given, name=name: _mark_first(given, ("enters", name))))
        hooks.append(linear.register_forward_hook(lambda *given, name=name: _mark(given[-1], ("leaves", name))))
    for name, norm in norms(model).items():
        hooks.append(norm.register_forward_hook(lambda *given, name=name: _mark(given[-1], ("norm", name))))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in frozen:
            parameter.requires_grad_(False)


def _mark_first(given: tuple[Any, ...], place: tuple[str, str]) -> tuple[Any, ...]:
    return (_mark(given[0], place), *given[1:]) if given else given


def _mark(value: Any, place: tuple[str, str]) -> Any:
    """Return a tensor marked; what is none stays as it is, and what becomes of it is not known."""
    return _Mark.apply(value, place) if isinstance(value, torch.Tensor) else value


def _place(node: Any) -> tuple[str, str] | None:
    return getattr(node, "place", None)


def _name(node: Any) -> str:
    return node if isinstance(node, str) else node.name()


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in a model's output."""
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, tuple | list):
        for value in output:
            yield from _tensors(value)


def _is_vector(module: nn.Module, name: str) -> bool:
    value = getattr(module, name, None)
    return isinstance(value, torch.Tensor) and value.dim() == 1
