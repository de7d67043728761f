"""Students: smaller models of their teacher's kind that begin with a part of its weights."""

from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from optkit.core.errors import InputError
from optkit.models import families, tokenizers
from optkit.models.family import ATTENTION
from optkit.models.loading import LoadedModel, max_length
from optkit.recipe.stage import Stage, Taught
from optkit.tasks.base import Task, TaskKind


def student(teacher: PreTrainedModel, layers: int | None, hidden_size: int | None) -> PreTrainedModel:
    """A model of `layers` layers and width `hidden_size` that starts from evenly spaced layers of the teacher.

    A narrower student takes the first channels of each attention head and of every other axis, and its feed-forward
    narrows by the same ratio. That is a beginning, not an approximation: its distillation has to be longer.

    Args:
        teacher: stays as it is.
        layers, hidden_size: None keeps the teacher's.

    Raises:
        InputError: more layers or wider than the teacher, a width that its attention heads do not divide, layers that are
            not one module each, or no Linear modules of attention whose heads could be cut.
    """
    depth, width = families.depth(teacher.config), families.width(teacher.config)
    layers, hidden_size = layers or depth, hidden_size or width
    check(teacher.config, layers, hidden_size)
    _check_modules(teacher, narrower=hidden_size < width)
    chosen = chosen_layers(depth, layers)
    try:
        with teacher.device:
            made = type(teacher)(families.resized(teacher.config, chosen, hidden_size / width))
    except (ValueError, AssertionError, RuntimeError) as error:  # of the family's code, where sizes do not go together
        raise InputError(
            f"{type(teacher).__name__}: a student of {layers} layers, {hidden_size} wide, cannot be made ({error}); "
            "choose another size"
        ) from error
    families.prepare(made)
    _copy(teacher, made, chosen)
    return made


def check(config: Any, layers: int | None, hidden_size: int | None) -> None:
    """Raise `InputError` where no student of this size can be made from a teacher of this configuration."""
    depth, width, heads = families.depth(config), families.width(config), families.heads(config)
    if (layers or 0) > depth:
        raise InputError(f"a student of {layers} layers is deeper than its teacher of {depth}; give at most {depth}")
    if (hidden_size or 0) > width:
        raise InputError(f"a student {hidden_size} wide is wider than its teacher of {width}; give at most {width}")
    if hidden_size and hidden_size % heads:
        below, above = hidden_size // heads * heads, -(-hidden_size // heads) * heads
        raise InputError(
            f"hidden_size={hidden_size} is not divided by the {heads} attention heads of the teacher; "
            f"give {f'{below} or ' if below else ''}{above}"
        )
    if hidden_size and families.rotates(config) and hidden_size // heads % 2:
        raise InputError(
            f"hidden_size={hidden_size} makes heads of {hidden_size // heads} channels, an odd number, which cannot be "
            f"rotated by their positions; give {hidden_size + heads}"
        )


def check_teacher(
    loaded: LoadedModel, teacher: LoadedModel, name: str, stage: Stage | None = None, task: TaskKind | None = None
) -> None:
    """Raise `InputError` where a teacher cannot teach this student.

    Logits of whole texts are of the teacher's own inputs. Logits of tokens need the student's tokens, and a teacher that
    answers within the training, for replaced words or, the first alone, for its representations, reads the student's inputs.

    Args:
        loaded: student.
        teacher: its teacher.
        name: of the teacher.
        stage: that trains; without one, the teacher has to be able to teach within any training.
        task: that is taught; without one, any.
    """
    if isinstance(task, Task):
        _check_told_length(task, teacher, name)
    live = not isinstance(stage, Taught) or bool(stage.answers and stage.augment) or _is_followed(name, stage)
    live, per_token = live or task is None, task is not None and task.per_token()
    if live or per_token:
        _check_tokens(loaded, teacher, name)
        _check_lengths(_longest(loaded, task), _longest(teacher, task), name, per_token)
    if live:
        _check_inputs(loaded, teacher, name, task)
        depths = families.depth(loaded.model.config), families.depth(teacher.model.config)
        if depths[0] > depths[1]:
            raise InputError(
                f"a student of {depths[0]} layers is deeper than its teacher {name!r} of {depths[1]}; give fewer"
            )


def _is_followed(name: str, stage: Taught) -> bool:
    """Whether it is this teacher's representations that a stage follows."""
    return stage.follows and (len(stage.teachers) < 2 or name == stage.teachers[0])


def _check_tokens(loaded: LoadedModel, teacher: LoadedModel, name: str) -> None:
    ours, theirs = loaded.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    if ours != theirs:
        differing = sorted(token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
        raise InputError(
            f"teacher {name!r} has a vocabulary of {len(theirs)} tokens, the student one of {len(ours)}, and "
            f"{len(differing)} tokens differ ({', '.join(map(repr, differing[:3]))}); expected the same. Choose a teacher "
            "that was trained with the student's tokenizer"
        )
    if parts := tokenizers.differences(loaded.tokenizer, teacher.tokenizer):
        raise InputError(
            f"teacher {name!r} reads texts otherwise than the student: their tokenizers differ in {', '.join(parts)}. "
            "Choose a teacher that was trained with the student's tokenizer"
        )


def _check_told_length(task: Task, teacher: LoadedModel, name: str) -> None:
    try:
        task.length(teacher.tokenizer)
    except InputError as error:
        raise InputError(f"teacher {name!r}: {error}") from error


def _longest(loaded: LoadedModel, task: TaskKind | None) -> int:
    return max_length(loaded, task) if isinstance(task, Task) else loaded.tokenizer.model_max_length


def _check_lengths(ours: int, theirs: int, name: str, equal: bool) -> None:
    if theirs < ours or (equal and theirs != ours):
        expected = "as many" if equal else "no fewer"
        raise InputError(f"teacher {name!r} reads at most {theirs} tokens, the student {ours}; expected {expected}")


def _check_inputs(loaded: LoadedModel, teacher: LoadedModel, name: str, task: TaskKind | None) -> None:
    lacking = set(teacher.tokenizer.model_input_names) - set(loaded.tokenizer.model_input_names)
    if isinstance(task, Task) and len(task.text_columns) == 1:
        lacking -= {"token_type_ids"}  # a single text is the first segment, which is what models take without
    if lacking:
        raise InputError(
            f"teacher {name!r} takes {', '.join(sorted(lacking))}, which the student's tokenizer does not give, and a "
            "training with augment or representation_epochs shows both the same. Set both to 0 to learn from the teacher's "
            "stored logits, or choose a teacher with the student's inputs"
        )


def chosen_layers(depth: int, count: int) -> list[int]:
    """`count` of `depth` layers, evenly spaced, the first and the last among them (a single one is the last)."""
    if count == 1:
        return [depth - 1]
    return [int(index) for index in np.rint(np.linspace(0, depth - 1, count))]


def _check_modules(teacher: PreTrainedModel, narrower: bool) -> None:
    """Raise `InputError` where layers are not modules of their own, or where their attention heads are not known."""
    found = families.attention_linears(teacher)
    wanted = ("fused", "attention_output") if "fused" in found else ATTENTION
    missing = [role for role in wanted if role not in found]
    if narrower and missing:
        raise InputError(
            f"{type(teacher).__name__}: no Linear in its layers is known as {', '.join(missing)}; expected all of "
            f"{', '.join(wanted)}, whose heads a narrower student cuts. Leave hidden_size out, or register an "
            "optkit.models.families.Family that names them"
        )


def _copy(teacher: PreTrainedModel, student: PreTrainedModel, chosen: list[int]) -> None:
    """Give the student every tensor of the teacher that it has a place for, layer by chosen layer, cut to its size.

    Tables that are computed and not learned, as RoFormer's positions, are the student's own.
    """
    theirs, number = teacher.state_dict(), families.layers_of(teacher).number
    shared = len(families.encoder_layers(teacher)) < families.depth(teacher.config)
    learned = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    cut = _Cut(teacher, student)
    for name, tensor in student.state_dict().items():
        index = number(name)
        source = name if index is None or shared else name.replace(f".{index}.", f".{chosen[index]}.", 1)
        if name in learned or tensor.shape == theirs[source].shape:
            with torch.no_grad():
                tensor.copy_(cut(name, theirs[source], tensor.shape))


class _Cut:
    """The leading part of a tensor along every axis; of every head along an axis of attention heads, and of both factors
    along the axis of a gated feed-forward.

    Heads run along what queries, keys and values give, and along what attention's output takes.
    """

    def __init__(self, teacher: PreTrainedModel, student: PreTrainedModel) -> None:
        self.family, self.number = families.family_of(teacher.config), families.layers_of(teacher).number
        self.narrower = families.width(student.config) < families.width(teacher.config)
        self.heads = (families.head_size(teacher), families.head_size(student)) if self.narrower else (0, 0)

    def __call__(self, name: str, source: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Cut the teacher's tensor of this name to the student's shape."""
        role = self._role(name) if self.narrower else None
        special = int(role == "attention_output")
        for axis, size in enumerate(shape):
            if axis != special or role is None:
                source = source.narrow(axis, 0, size)
            elif size != source.shape[axis]:
                sizes = (source.shape[axis] // 2, size // 2) if role == "gated" else self.heads
                source = source.unflatten(axis, (-1, sizes[0])).narrow(axis + 1, 0, sizes[1]).flatten(axis, axis + 1)
        return source

    def _role(self, name: str) -> str | None:
        if self.number(name) is None:
            return None
        return self.family.role(name.rpartition(".")[0]) or self.family.role(name)
