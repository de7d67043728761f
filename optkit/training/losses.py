"""Losses: what a training step minimises.

A loss is a function of the model and a batch, so that the training loop knows nothing of tasks, teachers or
representations. What depends on the task's head, the task says.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from optkit.core.errors import InputError
from optkit.tasks.base import TaskKind

Tensors = Mapping[str, torch.Tensor]
_NO_POSITION = -1e4  # a teacher's logit where its feature had no token


@dataclass(frozen=True)
class Batch:
    """Batch that a step trains on."""

    inputs: Tensors
    """Inputs of the model, int64 [batch, sequence]."""
    targets: Tensors
    """Targets of the task by column, [batch, …]."""
    indices: Sequence[int]
    """Indices of the batch's examples among the training features."""


Loss = Callable[[Any, Batch], torch.Tensor]
Teacher = Callable[[Batch], torch.Tensor]
"""A teacher's logits for a batch, of the task's axes."""


def task_loss(task: TaskKind) -> Loss:
    """The task's own loss, of a model beside the targets."""

    def loss(model: Any, batch: Batch) -> torch.Tensor:
        return task.loss(model(**batch.inputs), batch.targets)

    return loss


def with_teacher(task: TaskKind, teacher: Teacher, temperature: float, label_weight: float) -> Loss:
    """Distillation from a teacher's logits, mixed with the task's loss.

    Args:
        task: of both.
        teacher: `stored` or `live`.
        temperature: of the distillation.
        label_weight: share of the task's loss; the teacher has the rest.
    """

    def loss(model: Any, batch: Batch) -> torch.Tensor:
        output = model(**batch.inputs)
        student, mask = task.logits(output), batch.inputs.get("attention_mask")
        theirs = teacher(batch).to(student.device)
        soft = task.teaching_loss(student, theirs, batch.targets)
        if soft is None:
            soft = _apart(task, student, theirs, mask, temperature)
        hard = task.loss(output, batch.targets) if label_weight else 0.0
        return (1 - label_weight) * soft + label_weight * hard

    return loss


def _apart(
    task: TaskKind, student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor | None, temperature: float
) -> torch.Tensor:
    """Return the distillation loss between logits; the squared distance for tasks without distributions."""
    ours, theirs = (task.distributions(logits, mask) for logits in (student, teacher))
    if ours is None or theirs is None:
        ours, theirs = (task.unpadded(logits, mask).float() for logits in (student, teacher))
        return functional.mse_loss(ours, theirs)
    return distillation(ours, theirs, temperature)


def stored(logits: Sequence[np.ndarray], task: TaskKind) -> Teacher:
    """A teacher that answers from logits computed beforehand: one array per feature, of the task's axes.

    Where a feature is shorter than its batch, it answers with logits of no probability.
    """

    def teacher(batch: Batch) -> torch.Tensor:
        length = next(iter(batch.inputs.values())).shape[1] if task.per_token() else len(logits[0])
        rows = np.full((len(batch.indices), length, *logits[0].shape[1:]), _NO_POSITION, dtype=np.float32)
        for row, index in zip(rows, batch.indices, strict=True):
            row[: len(logits[index])] = logits[index][:length]
        return torch.from_numpy(rows)

    return teacher


def averaged(teachers: Sequence[Teacher], task: TaskKind) -> Teacher:
    """A teacher that answers what several do together, in float32 (see `Task.mean_of_teachers`); a single one as it is.

    Raises:
        InputError: their logits differ in shape.
    """
    if len(teachers) == 1:
        return teachers[0]

    def teacher(batch: Batch) -> torch.Tensor:
        answers = [one(batch).float() for one in teachers]
        shapes = dict.fromkeys(tuple(answer.shape[1:]) for answer in answers)
        if len(shapes) > 1:
            found = " and ".join(str(list(shape)) for shape in shapes)
            raise InputError(f"teachers whose logits have the shapes {found}: expected one shape, to average them")
        return task.mean_of_teachers(torch.stack(answers))

    return teacher


def live(model: torch.nn.Module, task: TaskKind, inputs: Sequence[str] | None = None) -> Teacher:
    """A teacher that looks at every batch itself: for inputs that are never the same twice.

    Args:
        model: answers.
        task: of its head.
        inputs: names of those that it takes, where the student takes others too.
    """

    def teacher(batch: Batch) -> torch.Tensor:
        device = next(iter(batch.inputs.values())).device
        with torch.no_grad():
            return task.logits(model.to(device).eval()(**only(batch.inputs, inputs)))

    return teacher


def only(tensors: Tensors, names: Sequence[str] | None) -> Tensors:
    """Return the inputs with these names; all without names."""
    return tensors if names is None else {name: tensors[name] for name in names if name in tensors}


def distillation(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL(teacher || student) of the softened distributions times T², averaged over them (Hinton et al. 2015, arXiv
    1503.02531).

    Args:
        student, teacher: [distributions, choices].
        temperature: T.
    """
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
