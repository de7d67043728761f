"""Students: smaller models of their teacher's kind that begin with a part of its weights."""

import copy

import numpy as np
import torch
from transformers import PreTrainedModel

from optkit.core.errors import InputError
from optkit.models.families import layer_index
from optkit.models.loading import Loaded

_SIZES = ("hidden_size", "intermediate_size", "embedding_size", "dim", "hidden_dim")


def student(teacher: PreTrainedModel, layers: int | None, hidden_size: int | None) -> PreTrainedModel:
    """A model of `layers` layers and width `hidden_size` that starts from evenly spaced layers of the teacher.

    A narrower student takes the first channels of each attention head and of every other axis, and its feed-forward
    narrows by the same ratio. That is a beginning, not an approximation: its distillation has to be longer.

    Args:
        teacher: stays as it is.
        layers, hidden_size: None keeps the teacher's.

    Raises:
        InputError: more layers or wider than the teacher, or a width that its attention heads do not divide.
    """
    depth, width = teacher.config.num_hidden_layers, teacher.config.hidden_size
    layers, hidden_size = layers or depth, hidden_size or width
    check(teacher.config, layers, hidden_size)
    with teacher.device:
        made = type(teacher)(_config(teacher.config, layers, hidden_size / width))
    _copy(teacher, made, chosen_layers(depth, layers))
    return made


def check(config, layers: int | None, hidden_size: int | None) -> None:
    """Raise `InputError` where no student of this size can be made from a teacher of this configuration."""
    depth, width, heads = config.num_hidden_layers, config.hidden_size, config.num_attention_heads
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


def check_teacher(loaded: Loaded, teacher: Loaded, name: str) -> None:
    """Raise `InputError` where a teacher cannot teach this student."""
    ours, theirs = loaded.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    if ours != theirs:
        differing = sorted(token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
        raise InputError(
            f"teacher {name!r} has a vocabulary of {len(theirs)} tokens, the student one of {len(ours)}, and "
            f"{len(differing)} tokens differ ({', '.join(map(repr, differing[:3]))}); expected the same. Choose a teacher "
            "that was trained with the student's tokenizer"
        )
    depths = loaded.model.config.num_hidden_layers, teacher.model.config.num_hidden_layers
    if depths[0] > depths[1]:
        raise InputError(f"a student of {depths[0]} layers is deeper than its teacher {name!r} of {depths[1]}; give fewer")


def chosen_layers(depth: int, count: int) -> list[int]:
    """`count` of `depth` layers, evenly spaced, the first and the last among them (a single one is the last)."""
    if count == 1:
        return [depth - 1]
    return [int(index) for index in np.rint(np.linspace(0, depth - 1, count))]


def _config(teacher, layers: int, ratio: float):
    """The teacher's configuration, shallower, and narrower by a ratio."""
    config = copy.deepcopy(teacher)
    config.num_hidden_layers = layers
    for name in _SIZES:
        if name in config.to_dict():  # under its own name only: some configurations have aliases
            setattr(config, name, round(getattr(config, name) * ratio))
    return config


def _copy(teacher: PreTrainedModel, student: PreTrainedModel, chosen: list[int]) -> None:
    """Give the student every tensor of the teacher that it has a place for, layer by chosen layer, cut to its size."""
    theirs = teacher.state_dict()
    heads = teacher.config.num_attention_heads
    ours = student.state_dict()
    for name, tensor in ours.items():
        source = theirs[_renumbered(name, chosen)]
        with torch.no_grad():
            tensor.copy_(_cut(source, tensor.shape, name, heads))


def _renumbered(name: str, chosen: list[int]) -> str:
    """The teacher's name of a student's tensor."""
    index = layer_index(name)
    return name if index is None else name.replace(f".{index}.", f".{chosen[index]}.", 1)


def _cut(source: torch.Tensor, shape: torch.Size, name: str, heads: int) -> torch.Tensor:
    """The leading part of a tensor along every axis; along an axis of attention heads, of every head."""
    for axis, size in enumerate(shape):
        if size == source.shape[axis]:
            continue
        if _axis_of_heads(name, axis):
            parts = source.unflatten(axis, (heads, -1)).narrow(axis + 1, 0, size // heads)
            source = parts.flatten(axis, axis + 1)
        else:
            source = source.narrow(axis, 0, size)
    return source


def _axis_of_heads(name: str, axis: int) -> bool:
    """Whether an axis runs over the heads: what queries, keys and values give, and what attention's output takes."""
    if any(part in name for part in (".query.", ".key.", ".value.", ".q_lin.", ".k_lin.", ".v_lin.")):
        return axis == 0
    return axis == 1 and (".attention.output.dense." in name or ".attention.out_lin." in name)
