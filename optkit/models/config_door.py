"""The one door for configurations of models: numbers within bounds before anything is made of them, and what is plain."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
from torch import nn
from transformers import AutoConfig, PreTrainedModel
from transformers.activations import ACT2FN

from optkit.core.errors import InputError, MachineError
from optkit.core.json_door import read_json
from optkit.models import families

log = logging.getLogger(__name__)
FILE = "config.json"
LAYERS, PARTS, CLASSES, SIZE, LARGEST = 256, 1024, 2**16, 2**24, 2**31 - 1
"""Most layers; other parts that are made one by one; classes; channels, words or tokens; and any other whole number."""
_FIX = "give the configuration that the weights were saved with"
_PARTS = re.compile(r"layer|group|block|stage|repeat")
_PLAIN: Mapping[str, Any] = {
    "chunk_size_feed_forward": 0,
    "output_attentions": False,
    "output_hidden_states": False,
    "return_dict": True,
}
"""Fields that change how a model computes or what it gives besides, and not its logits."""
_ATTENTION = (None, "eager", "sdpa")
"""Implementations of attention that need no other package, and that graphs are made of; all give the same logits."""
_BYTES = 4  # of a parameter in float32


def read(folder: Path) -> Any:
    """Read the configuration of a model, without what changes nothing in its logits.

    Args:
        folder: of the model.

    Raises:
        InputError: no `config.json`, a number beyond its bounds, or an activation that is not known.
    """
    path = folder / FILE
    stated = read_json(path, dict[str, Any], _FIX)
    _check_names(stated, path)
    names = families.family_of(stated)
    most = dict.fromkeys((*names.width, *names.heads, *names.inner, *names.positions, "vocab_size"), SIZE)
    most |= dict.fromkeys((*names.depth, *names.groups), LAYERS) | {"num_labels": CLASSES}
    least = dict.fromkeys((*names.width, *names.heads, "vocab_size"), 1) | dict.fromkeys(names.depth, 0)
    for name, value in _numbers(stated):
        bounds = least.get(name, -LARGEST), most.get(name, PARTS if _PARTS.search(name) else LARGEST)
        if not bounds[0] <= value <= bounds[1]:
            raise InputError(f"{path}: {name} is {value}, expected {bounds[0]} to {bounds[1]}; {_FIX}")
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    activation = families.activation(config)
    if isinstance(activation, str) and activation not in ACT2FN:
        raise InputError(f"{path}: the activation {activation!r} is not known; it is one of {', '.join(sorted(ACT2FN))}")
    for name, value in _PLAIN.items():
        if (told := getattr(config, name, value)) != value:
            log.info("%s: %s is %r, which changes no logits: taken as %r", path, name, told, value)
            setattr(config, name, value)
    if (told := config._attn_implementation) not in _ATTENTION:
        log.info("%s: attention is %r, which changes no logits: taken as PyTorch's own", path, told)
        config._attn_implementation = None
    return config


def _check_names(stated: Mapping[str, Any], path: Path) -> None:
    """Raise `InputError` for a model's name or classes that are no text."""
    kind, classes = stated.get("model_type"), stated.get("architectures")
    if kind is not None and not isinstance(kind, str):
        raise InputError(f"{path}: model_type is {json.dumps(kind)[:60]}, expected text; {_FIX}")
    if classes is not None and not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        raise InputError(f"{path}: architectures is {json.dumps(classes)[:60]}, expected an array of text; {_FIX}")


def make_plain(model: PreTrainedModel) -> None:
    """Change a model in place so that it gives its logits alone, and computes its feed-forward at once."""
    for name, value in _PLAIN.items():
        for part in (model.config, *model.modules()):
            if getattr(part, name, value) != value:
                setattr(part, name, value)


def check_size(model: nn.Module, source: str) -> None:
    """Refuse a model that does not fit into this machine's memory.

    Args:
        model: on the meta device, where it takes none.
        source: what it belongs to, for messages.

    Raises:
        MachineError: it does not.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    have = psutil.virtual_memory().total
    if parameters * _BYTES > have:
        raise MachineError(
            f"{source}: {parameters:,} parameters by its {FILE}, which are {parameters * _BYTES / 1e9:,.1f} GB in float32; "
            f"this machine has {have / 1e9:,.1f} GB of memory. Take a smaller model, or a larger machine"
        )


def _numbers(stated: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """Yield every whole number with the name of the field that it stands in, also inside of others."""
    if isinstance(stated, int) and not isinstance(stated, bool):
        yield name, stated
    elif isinstance(stated, dict):
        for own, value in stated.items():
            yield from _numbers(value, own)
    elif isinstance(stated, list):
        for value in stated:
            yield from _numbers(value, name)
