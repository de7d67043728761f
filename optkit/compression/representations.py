"""A student beside its teacher, reading what both hold inside: the first phase of distillation."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from optkit.compression.relations import relation_loss
from optkit.core.errors import InputError
from optkit.models.families import attention_names, encoder_layers, family_of, heads, linears, width
from optkit.models.family import VECTORS
from optkit.training.losses import Batch, hidden_state_loss, only


class Representations(nn.Module):
    """Module of student and teacher whose forward returns the loss between their representations.

    Only the student, and the projection of its hidden states [student's width → teacher's width] where the widths
    differ, are trained.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        layers: Sequence[int],
        hidden_weight: float,
        relation_weight: float,
        relation_heads: int,
        teacher_inputs: Sequence[str] | None = None,
    ) -> None:
        """Watch both models.

        Args:
            student: is trained in place.
            teacher: stays as it is.
            layers: for each layer of the student, the teacher's layer that it follows.
            hidden_weight, relation_weight: of the two losses.
            relation_heads: how many relation heads queries, keys and values are cut into; divides both widths.
            teacher_inputs: names of the inputs that the teacher takes, where the student takes others too.

        Raises:
            InputError: the heads do not divide a width, or queries, keys or values are not found.
        """
        super().__init__()
        _check_heads(student, teacher, relation_heads)
        self.student, self.teacher = student, teacher.requires_grad_(False).eval()
        self.layers, self.heads, self.teacher_inputs = tuple(layers), relation_heads, teacher_inputs
        self.weights = (hidden_weight, relation_weight)
        widths = width(student.config), width(teacher.config)
        self.projection = nn.Identity() if widths[0] == widths[1] else nn.Linear(*widths, bias=False)
        self._layers: dict[str, list[torch.Tensor]] = {"student": [], "teacher": []}
        self._vectors: dict[tuple[str, str], torch.Tensor] = {}
        self._hooks = [*self._watch("student", student), *self._watch("teacher", teacher)]

    def train(self, mode: bool = True) -> "Representations":
        """The student trains; the teacher answers without dropout."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        """The loss of inputs [batch, sequence]."""
        with torch.no_grad():
            self.teacher(**only(inputs, self.teacher_inputs))
        output = self.student(**inputs)
        mask = inputs["attention_mask"]
        hidden = [
            hidden_state_loss(self.projection(self._layers["student"][own]), self._layers["teacher"][their], mask)
            for own, their in enumerate(self.layers)
        ]
        relations = [
            relation_loss(self._vectors["student", kind], self._vectors["teacher", kind], mask, self.heads)
            for kind in VECTORS
        ]
        self._layers = {"student": [], "teacher": []}
        self._vectors.clear()
        unused = sum(value.sum() for value in output.values()) * 0.0  # several processes expect a gradient everywhere
        return self.weights[0] * _mean(hidden) + self.weights[1] * _mean(relations) + unused

    def release(self) -> None:
        """Stop watching: both models are as they were before."""
        for hook in self._hooks:
            hook.remove()

    def _watch(self, who: str, model: PreTrainedModel) -> Iterator[RemovableHandle]:
        """Keep what layers put out, one entry a call, as layers may share a module; and the last layer's vectors."""
        for layer in encoder_layers(model):
            yield layer.register_forward_hook(self._keep_layer(who))
        for kind, (linear, part) in last_vectors(model).items():
            yield linear.register_forward_hook(self._keep_vectors(who, kind, part))
            # what is kept is of the first call in an attention block, as DeBERTa projects its positions by the same module
            name = next(name for name, module in model.named_modules() if module is linear)
            block = model.get_submodule(name.rpartition(".")[0])
            yield block.register_forward_pre_hook(self._forget_vectors(who, kind))

    def _keep_layer(self, who: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self._layers[who].append(output[0] if isinstance(output, tuple) else output)

        return hook

    def _keep_vectors(self, who: str, kind: str, part: "Part") -> Any:
        def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            self._vectors.setdefault((who, kind), part(output))

        return hook

    def _forget_vectors(self, who: str, kind: str) -> Any:
        def hook(module: nn.Module, inputs: Any) -> None:
            self._vectors.pop((who, kind), None)

        return hook


def representation_loss(model: Representations, batch: Batch) -> torch.Tensor:
    """The `Loss` of the first phase."""
    return model(**batch.inputs)


Part = Callable[[torch.Tensor], torch.Tensor]
"""Function from what a Linear puts out [batch, sequence, channels] to the channels of the vectors of one kind."""


def last_vectors(model: PreTrainedModel) -> dict[str, tuple[nn.Module, Part]]:
    """The last layer's projections to queries, keys and values, each with the part of what it puts out.

    Raises:
        InputError: one is not found.
    """
    found = {role: model.get_submodule(name) for role, name in attention_names(model).items()}
    if "fused" in found:
        by_head = heads(model.config) if family_of(model.config).fused_by_head else None
        return {kind: (found["fused"], partial(_third, index, by_head)) for index, kind in enumerate(VECTORS)}
    if not found.keys() >= {*VECTORS}:
        last = dict.fromkeys(name.rpartition(".")[2] for name in linears(encoder_layers(model)[-1]))
        raise InputError(
            f"{type(model).__name__}: its last layer has the Linear modules {', '.join(last)}; expected those of queries, "
            "keys and values. Set representation_epochs=0 to distil its logits alone"
        )
    return {kind: (found[kind], _whole) for kind in VECTORS}


def _whole(output: torch.Tensor) -> torch.Tensor:
    return output


def _third(index: int, by_head: int | None, output: torch.Tensor) -> torch.Tensor:
    """Queries, keys or values [batch, sequence, channels] of a fused projection, which may give them head by head."""
    if by_head is None:
        return output.chunk(3, dim=-1)[index]
    return output.unflatten(-1, (by_head, 3, -1))[..., index, :].flatten(-2)


def _check_heads(student: PreTrainedModel, teacher: PreTrainedModel, heads: int) -> None:
    for who, model in (("student", student), ("teacher", teacher)):
        if width(model.config) % heads:
            raise InputError(
                f"relation_heads={heads} does not divide the {who}'s width of {width(model.config)}; "
                f"give one of {', '.join(map(str, _divisors(width(student.config), width(teacher.config))))}"
            )
        for kind, (linear, _) in last_vectors(model).items():
            size = cast(nn.Linear, linear).out_features
            if size % heads:
                raise InputError(
                    f"relation_heads={heads} does not divide the {who}'s {kind} vectors of {size} channels; give "
                    f"relation_heads={math.gcd(size, heads)}"
                )


def _divisors(*widths: int) -> Iterator[int]:
    return (count for count in range(1, min(widths) + 1) if not any(one % count for one in widths))


def _mean(values: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(values)).mean()
