"""Losses: what a training step minimises, from the model's output and a batch.

A batch is `{name: tensor [batch, sequence]}` for the model, targets, and the indices of its features. A loss is a
function of the three, so that the training loop knows nothing of tasks or teachers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

Targets = Mapping[str, torch.Tensor]
Loss = Callable[[Any, Targets, Sequence[int]], torch.Tensor]
_NO_POSITION = -1e4  # a teacher's logit where its feature had no token


def logits_of(output: Any) -> torch.Tensor:
    """[batch, classes], or [batch, sequence, 2] with the start and end logits of question answering."""
    if "start_logits" in output:
        return torch.stack([output["start_logits"], output["end_logits"]], dim=-1)
    return output["logits"]


def task_loss(output: Any, targets: Targets, indices: Sequence[int] = ()) -> torch.Tensor:
    """Cross-entropy of the labels; of question answering, the mean over start and end positions."""
    if "start_positions" in targets:
        start = functional.cross_entropy(output["start_logits"].float(), targets["start_positions"])
        end = functional.cross_entropy(output["end_logits"].float(), targets["end_positions"])
        return (start + end) / 2
    return functional.cross_entropy(output["logits"].float(), targets["labels"])


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


def with_teacher(teacher_logits: Sequence[np.ndarray], temperature: float, label_weight: float) -> Loss:
    """Distillation from logits computed beforehand, mixed with the labels' loss.

    Args:
        teacher_logits: one array per training feature, [classes] or [sequence, 2].
        temperature: of the distillation.
        label_weight: share of the labels' loss; the teacher has the rest.
    """

    def loss(output: Any, targets: Targets, indices: Sequence[int]) -> torch.Tensor:
        student = logits_of(output)
        teacher = _batch_of(teacher_logits, indices, student.shape[1]).to(student.device)
        soft = distillation(student, teacher, temperature)
        return (1 - label_weight) * soft + label_weight * task_loss(output, targets)

    return loss


def _batch_of(logits: Sequence[np.ndarray], indices: Sequence[int], length: int) -> torch.Tensor:
    """[batch, length, …]; shorter features are padded with logits of no probability."""
    batch = np.full((len(indices), length, *logits[0].shape[1:]), _NO_POSITION, dtype=np.float32)
    for row, index in zip(batch, indices, strict=True):
        row[: len(logits[index])] = logits[index][:length]
    return torch.from_numpy(batch)
