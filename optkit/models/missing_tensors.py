"""Tensors that a checkpoint lacks: those of a head that is trained anew may be, others may not."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from optkit.core.errors import InputError
from optkit.tasks.base import Task


def in_head(tensor: str, model: PreTrainedModel, task: Task) -> bool:
    """Return whether a tensor belongs to the head, and not to the pretrained encoder below it."""
    below = f"{model.base_model_prefix}."
    return tensor.startswith(task.head_modules) or (model.base_model is not model and not tensor.startswith(below))


def check_kind(config: Any, task: Task, source: str) -> None:
    """Raise `InputError` if a head was trained for another task, as its configuration says."""
    if not task.has_head(config):
        raise InputError(
            f"{source}: its config.json says problem_type {config.problem_type!r} and {config.num_labels} classes, which is "
            f"not for the task {task.name}; give the task that its head was trained for"
        )


def check(
    source: str,
    model: PreTrainedModel,
    missing: Iterable[str],
    mismatched: Iterable[tuple[str, Sequence[int], Sequence[int]]],
    fine_tuned: bool,
    task: Task,
) -> None:
    """Raise `InputError` if tensors other than a new head and its pooler are missing or of another shape, or not finite."""
    for name, found, expected in mismatched:
        if in_head(name, model, task) and found[0] != expected[0]:
            named = f" ({', '.join(task.labels)})" if task.labels else ""
            raise InputError(
                f"--model {source}: its head has {found[0]} classes, the task has {expected[0]}{named}; give the model that "
                "was fine-tuned for this task, or one without a head"
            )
        raise InputError(f"--model {source}: {name} has shape {list(found)}, config.json makes it {list(expected)}")
    lost = sorted(name for name in missing if fine_tuned or not (in_head(name, model, task) or ".pooler." in f".{name}"))
    if lost:
        raise InputError(
            f"--model {source}: {len(lost)} tensors are missing from its *.safetensors: {', '.join(lost[:5])}; "
            "expected all those of its encoder. Save it again with save_pretrained"
        )
    head = {name for name in model.state_dict() if name.startswith(task.head_modules)}
    gone = sorted(head.intersection(missing))
    if gone and len(gone) < len(head):
        kept = ", ".join(sorted(head.difference(gone))[:3])
        raise InputError(
            f"--model {source}: of its head {', '.join(gone)} is missing, and {kept} is there; save it with all of it, "
            "or without it to have a new one trained"
        )
    broken = [name for name, tensor in model.named_parameters() if not torch.isfinite(tensor).all()]
    if broken:
        raise InputError(f"--model {source}: {len(broken)} tensors hold NaN or infinity: {', '.join(broken[:5])}")
