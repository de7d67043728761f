"""Differences between model families: place of the layers, roles of Linear modules, positions, names of sizes.

They are derived from the tree of modules and from names that many families share. A family with other names gets one
record, registered under the `model_type` of its configuration:

    FAMILIES.register("my-encoder", Family(depth=("blocks",), query=("ask",)))

Another package adds its own by an entry point of the group `optkit.families` (see `optkit.core.plugins`).
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, cast

from optkit.core.errors import InputError
from optkit.core.plugins import Registry
from optkit.models.family import Family, Names
from optkit.models.family_records import OWN
from optkit.models.layers import Layers

if TYPE_CHECKING:  # `optkit compare` reads sizes, and starts without torch
    import torch
    from torch import nn
    from transformers import PreTrainedModel

Config = Any
"""A configuration of transformers, or the content of a `config.json`."""
FAMILIES: Registry[Family] = Registry("model family", "optkit.families", {}, lambda thing: isinstance(thing, Family))


def family_of(config: Config) -> Family:
    """Return the record registered for a configuration's `model_type`, optkit's own, or the defaults."""
    kind = _field(config, ("model_type",))[1]
    return FAMILIES.get(kind) if kind in FAMILIES.names() else OWN.get(kind, Family())


def check(config: Config) -> None:
    """Raise `InputError` where no model of this configuration can be taken, whatever the recipe."""
    kind, refused = _field(config, ("model_type",))[1], family_of(config).refused
    if not refused and _field(config, ("is_encoder_decoder",))[1] is True:
        refused = "it has a decoder beside its encoder; choose an encoder"
    if refused:
        raise InputError(f"model type {kind!r} is not supported: {refused}")


def check_model(model: "PreTrainedModel") -> None:
    """Raise `InputError` where a model cannot be taken, whatever the recipe; its weights are not looked at."""
    check(model.config)
    if any(getattr(module, "is_causal", False) for module in model.modules()):
        raise InputError(
            f"{type(model).__name__} is not supported: its tokens see those before them only; choose an encoder, whose "
            "tokens see one another, such as one of the BERT, DeBERTa or ModernBERT family"
        )


def take(model: "PreTrainedModel") -> None:
    """Check a user's model and `prepare` it.

    Raises:
        InputError: it cannot be taken, whatever the recipe.
    """
    check_model(model)
    prepare(model)


def prepare(model: "PreTrainedModel") -> None:
    """Change a new model in place as its family's record says; called wherever a model is made or taken."""
    if name := family_of(model.config).prepare:
        resolve_name(name)(model)


def records() -> dict[str, Any]:
    """Return all registered records in JSON types, for the keys of steps."""
    return {name: asdict(family) for name, family in FAMILIES.working()}


def _field(config: Config, names: Names) -> tuple[str, Any]:
    """Return name and value of the first field that a configuration has; the first name and None if it has none."""
    get = config.get if isinstance(config, Mapping) else partial(getattr, config)
    found = ((name, get(name, None)) for name in names)
    return next((pair for pair in found if pair[1] is not None), (names[0], None))


def _size(config: Config, names: Names, least: int = 1) -> int:
    name, value = _field(config, names)
    if not isinstance(value, int) or value < least:
        where = "config.json" if isinstance(config, Mapping) else type(config).__name__
        raise InputError(
            f"{where}: {name} is {value!r}, expected a whole number from {least} on. Where the model has it under another "
            "name, register an optkit.models.families.Family that says so"
        )
    return value


def depth(config: Config) -> int:
    """Return the number of layers.

    Raises:
        InputError: the configuration has no field with it.
    """
    return _size(config, family_of(config).depth, least=0)


def width(config: Config) -> int:
    """Return the hidden size.

    Raises:
        InputError: the configuration has no field with it.
    """
    return _size(config, family_of(config).width)


def heads(config: Config) -> int:
    """Return the number of attention heads of a layer.

    Raises:
        InputError: the configuration has no field with it.
    """
    return _size(config, family_of(config).heads)


def key_heads(config: Config) -> int:
    """Return the number of heads of a layer's keys and values: fewer than its heads where several queries share one."""
    return _size(config, family_of(config).key_heads)


def layer_kinds(config: Config) -> list[str]:
    """Return the kind of each layer, such as "full_attention"; empty where the configuration tells no kinds apart."""
    kinds: list[str] | None = _field(config, family_of(config).per_layer)[1]
    return list(kinds or ())[: depth(config)]


def far(config: Config) -> bool:
    """Return whether attention differs for tokens that are far from one another: it is cut off, or coarser."""
    return _field(config, family_of(config).windows)[1] is not None


def rotates(config: Config) -> bool:
    """Return whether queries and keys are rotated by their positions, in pairs of channels."""
    return _field(config, family_of(config).rotary)[1] is not None


def positions(config: Config) -> int | None:
    """Return the number of position embeddings; None for a model without them."""
    rows: int | None = _field(config, family_of(config).positions)[1]
    return rows


def token_types(config: Config) -> int:
    """Return the number of token types; 0 for a model without them."""
    return _field(config, family_of(config).token_types)[1] or 0


def activation(config: Config) -> str | None:
    """Return the name of the activation between the two feed-forward products; None if no field has it."""
    name: str | None = _field(config, family_of(config).activation)[1]
    return name


def resized(config: Config, layers: Sequence[int], ratio: float) -> Config:
    """Return a copy of a configuration of transformers with a choice of its layers and scaled widths.

    Args:
        config: configuration to copy.
        layers: indices of the layers to keep.
        ratio: factor of the sizes in `width` and `inner`.
    """
    family, made, own = family_of(config), copy.deepcopy(config), config.to_dict()
    if kinds := layer_kinds(config):
        setattr(made, _field(config, family.per_layer)[0], [kinds[index] for index in layers])
    setattr(made, _field(config, family.depth)[0], len(layers))
    for name in (*family.width, *family.inner):
        if isinstance(own.get(name), int):  # under its own name only: some configurations have aliases
            setattr(made, name, round(own[name] * ratio))
    return made


def layers_of(model: "nn.Module") -> Layers:
    """Return the place of the layers of a model's encoder, lists of their other parts beside them included."""
    from torch import nn

    lists = Layers.among(linears(model), family_of(getattr(model, "config", {})).layers).lists
    sizes = {name: len(part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList)}
    wanted = {(name.rpartition(".")[0], sizes.get(name)) for name in lists}
    beside = (name for name, size in sizes.items() if (name.rpartition(".")[0], size) in wanted)
    return Layers(lists.union(beside))


def encoder_layers(model: "PreTrainedModel") -> "list[nn.Module]":
    """Return the modules that put out the hidden states of the encoder's layers, in order; fewer where layers share weights.

    Raises:
        InputError: their number differs from the configuration's.
    """
    number, layers = layers_of(model).number, depth(model.config)
    found: dict[int, Any] = {}
    for name, part in model.named_modules():
        index = number(name)
        if index is not None and number(name.rpartition(".")[0]) is None:
            found[index] = part  # of lists side by side the last
    if len(found) not in (layers, _field(model.config, family_of(model.config).groups)[1]):
        raise InputError(
            f"{type(model).__name__}: its configuration has {layers} layers, its modules are {len(found)}; expected one for "
            "each. Layers that are in parts, or have no Linear modules, can neither become a student nor be followed by "
            "one: leave Distill and representation_epochs out for this model"
        )
    return [found[index] for index in sorted(found)]


def encoder_linears(model: "nn.Module") -> "dict[str, nn.Linear]":
    """Return the Linear modules of the encoder's layers by name, without pooler, classifier and embeddings."""
    number = layers_of(model).number
    return {name: linear for name, linear in linears(model).items() if number(name) is not None}


def attention_linears(model: "PreTrainedModel") -> "dict[str, nn.Linear]":
    """Return the Linear modules of the last layer's attention by role, such as "query"; roles not found are left out."""
    return {role: cast("nn.Linear", model.get_submodule(name)) for role, name in attention_names(model).items()}


def attention_names(model: "PreTrainedModel") -> dict[str, str]:
    """Return the names of the modules in `attention_linears`."""
    family, number, last = family_of(model.config), layers_of(model).number, len(encoder_layers(model)) - 1
    found = dict[str, str]()
    for name in linears(model):
        if number(name) == last and (role := family.role(name)):
            found.setdefault(role, name)
    return found


def head_size(model: "PreTrainedModel") -> int:
    """Return the number of channels of an attention head."""
    told = (getattr(part, name, None) for part in model.base_model.modules() for name in ("attention_head_size", "head_dim"))
    found = next(filter(None, told), None)
    return found or attention_linears(model)["query"].out_features // heads(model.config)


def prunable(model: "nn.Module") -> "dict[str, nn.Linear]":
    """Return the modules of `encoder_linears` whose shape the hardware supports for 2:4 sparsity, by name."""
    from optkit.models import two_to_four

    return {name: linear for name, linear in encoder_linears(model).items() if two_to_four.fits(linear.weight)}


def linears(module: "nn.Module") -> "dict[str, nn.Linear]":
    """Return the Linear modules inside a module by name."""
    from torch import nn

    return {name: part for name, part in module.named_modules() if isinstance(part, nn.Linear)}


def word_embeddings(model: "PreTrainedModel") -> "torch.Tensor":
    """Return the word embeddings [words, width].

    Raises:
        InputError: the model has no such table: it reads characters or bytes.
    """
    try:
        table: torch.Tensor | None = getattr(model.get_input_embeddings(), "weight", None)
    except NotImplementedError:  # of transformers, where it finds none
        table = None
    if table is None:
        raise InputError(
            f"model type {model.config.model_type!r} is not supported: {type(model).__name__} has no table of word "
            "embeddings; it reads characters, bytes or what is no text. Choose an encoder of words, such as BERT"
        )
    return table


def uncounted(model: "PreTrainedModel") -> int | None:
    """Return the token that a model's position ids do not count, and whose own position id is its number; None where they
    count every token."""
    if family_of(model.config).first_position is not None:
        return None
    embeddings = getattr(model.base_model, "embeddings", None)
    token: int | None = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    return token


def first_position(model: "PreTrainedModel") -> int:
    """Return the position id of the first token."""
    token = uncounted(model)
    return family_of(model.config).first_position or 0 if token is None else token + 1


def longest_input(model: "PreTrainedModel") -> int | None:
    """Return the longest input in tokens that the model has positions for; None for a model without position embeddings.

    A model that attends to blocks of tokens takes those for which its attention is full.
    """
    table = positions(model.config)
    limits = [] if table is None else [table - first_position(model)]
    if getattr(model.config, "attention_type", None) == "block_sparse":  # BigBird's own rule
        limits.append((5 + 2 * model.config.num_random_blocks) * model.config.block_size)
    return min(limits, default=None)
