"""Losses: what a training step minimises.

A loss is a function of the model and a batch, so that the training loop knows nothing of tasks, teachers or
representations.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

Tensors = Mapping[str, torch.Tensor]
_NO_POSITION = -1e4  # a teacher's logit where its feature had no token


@dataclass(frozen=True)
class Batch:
    """What a step trains on."""

    inputs: Tensors
    """Of the model, int64 [batch, sequence]."""
    targets: Tensors
    """`labels`, or `start_positions` and `end_positions`, int64 [batch]."""
    indices: Sequence[int]
    """Of the training features in the batch."""


Loss = Callable[[Any, Batch], torch.Tensor]
Teacher = Callable[[Batch], torch.Tensor]
"""A teacher's logits for a batch, [batch, classes] or [batch, sequence, 2]."""


def logits_of(output: Any) -> torch.Tensor:
    """[batch, classes], or [batch, sequence, 2] with the start and end logits of question answering."""
    if "start_logits" in output:
        return torch.stack([output["start_logits"], output["end_logits"]], dim=-1)
    return output["logits"]


def task_loss(model: Any, batch: Batch) -> torch.Tensor:
    """The labels' loss of a model."""
    return labels_loss(model(**batch.inputs), batch.targets)


def labels_loss(output: Any, targets: Tensors) -> torch.Tensor:
    """Cross-entropy of the labels; of question answering, the mean over start and end positions."""
    if "start_positions" in targets:
        start = functional.cross_entropy(output["start_logits"].float(), targets["start_positions"])
        end = functional.cross_entropy(output["end_logits"].float(), targets["end_positions"])
        return (start + end) / 2
    return functional.cross_entropy(output["logits"].float(), targets["labels"])


def with_teacher(teacher: Teacher, temperature: float, label_weight: float) -> Loss:
    """Distillation from a teacher's logits, mixed with the labels' loss.

    Args:
        teacher: `stored` or `live`.
        temperature: of the distillation.
        label_weight: share of the labels' loss; the teacher has the rest.
    """

    def loss(model: Any, batch: Batch) -> torch.Tensor:
        output = model(**batch.inputs)
        student = logits_of(output)
        soft = distillation(student, teacher(batch).to(student.device), temperature)
        return (1 - label_weight) * soft + label_weight * labels_loss(output, batch.targets)

    return loss


def stored(logits: Sequence[np.ndarray]) -> Teacher:
    """A teacher that answers from logits computed beforehand: one array per feature, [classes] or [sequence, 2].

    Where a feature is shorter than its batch, it answers with logits of no probability.
    """

    def teacher(batch: Batch) -> torch.Tensor:
        length = next(iter(batch.inputs.values())).shape[1] if logits[0].ndim == 2 else len(logits[0])
        rows = np.full((len(batch.indices), length, *logits[0].shape[1:]), _NO_POSITION, dtype=np.float32)
        for row, index in zip(rows, batch.indices, strict=True):
            row[: len(logits[index])] = logits[index][:length]
        return torch.from_numpy(rows)

    return teacher


def live(model: torch.nn.Module) -> Teacher:
    """A teacher that looks at every batch itself: for inputs that are never the same twice."""

    def teacher(batch: Batch) -> torch.Tensor:
        device = next(iter(batch.inputs.values())).device
        with torch.no_grad():
            return logits_of(model.to(device).eval()(**batch.inputs))

    return teacher


def distillation(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL(teacher || student) of the softened distributions times T², averaged over the batch (Hinton et al. 2015,
    arXiv 1503.02531).

    Args:
        student, teacher: [batch, classes], or [batch, sequence, 2]: two distributions over the sequence, averaged.
        temperature: T.
    """
    if student.dim() == 3:
        student, teacher = (logits.transpose(1, 2).flatten(0, 1) for logits in (student, teacher))
    soft = functional.log_softmax(teacher.float() / temperature, dim=-1)
    predicted = functional.log_softmax(student.float() / temperature, dim=-1)
    return functional.kl_div(predicted, soft, log_target=True, reduction="batchmean") * temperature**2


def hidden_state_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Squared distance of the student's hidden states from the teacher's over the teacher's squared length, on real
    tokens: 0 is equal, 1 is as far as zero is (the MSE of Jiao et al. 2020, arXiv 1909.10351, without its unit).

    Args:
        student, teacher: [batch, sequence, hidden].
        mask: [batch, sequence], 1 for tokens and 0 for padding.
    """
    tokens, theirs = mask[..., None], teacher.float()
    return ((student.float() - theirs) * tokens).square().sum() / (theirs * tokens).square().sum()
