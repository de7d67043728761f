"""What differs between model families: where the layers are, which Linear is which, positions, names of sizes.

It follows from a model's tree of modules and from names that many families have in common. A family that has others gets
one record, under the `model_type` of its configuration:

    FAMILIES.register("my-encoder", Family(depth=("blocks",), query=("ask",)))

Another package brings its own by an entry point of the group `optkit.families` (see `optkit.core.plugins`).
"""

import copy
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from optkit.core.errors import InputError
from optkit.core.plugins import Registry

if TYPE_CHECKING:  # `optkit compare` reads sizes, and starts without torch
    import torch
    from torch import nn
    from transformers import PreTrainedModel

Names = tuple[str, ...]
Config = Any
"""A configuration of transformers, or the content of a `config.json`."""
ATTENTION = ("query", "key", "value", "attention_output")
"""Roles of Linear modules: the first three give channels of attention heads, the fourth takes them."""


@dataclass(frozen=True)
class Family:
    """By which names a family's parts and sizes go; of several the first that is there. The defaults are the usual ones."""

    layers: str = ""
    """Name of the list of the encoder's layers, such as `bert.encoder.layer`, or its end; empty to find it by `Layers`."""
    query: Names = ("query", "query_proj", "q_lin", "q_proj", "q_head", "q", "query_global", "pos_query_proj")
    key: Names = ("key", "key_proj", "k_lin", "k_proj", "k_head", "k", "key_global", "pos_key_proj")
    value: Names = ("value", "value_proj", "v_lin", "v_proj", "v_head", "v", "value_global")
    attention_output: Names = (
        *("attention.output.dense", "attention.dense", "out_lin", "out_proj", "o_proj", "post_proj", "attn.o"),
        *("SelfAttention.o", "attn.Wo"),
    )
    """Ends of the names of the Linear modules of each role in a layer."""
    depth: Names = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
    """Fields of the configuration, from here on: the number of layers."""
    width: Names = ("hidden_size", "dim", "d_model", "n_embd", "emb_dim")
    heads: Names = ("num_attention_heads", "n_heads", "n_head", "num_heads")
    inner: Names = (
        *("intermediate_size", "hidden_dim", "d_inner", "d_ff", "n_inner", "embedding_size", "input_embedding_size"),
        *("pooler_hidden_size", "true_hidden_size", "intra_bottleneck_size", "head_dim", "d_head", "d_kv"),
    )
    """Sizes that narrow with the width: all those that are there."""
    positions: Names = ("max_position_embeddings", "n_positions")
    token_types: Names = ("type_vocab_size",)
    activation: Names = ("hidden_act", "activation", "hidden_activation", "activation_function", "ff_activation")
    first_position: int | None = None
    """Position id of the first token; None to find it: RoBERTa and its kin count from the padding id onwards."""

    def role(self, module: str) -> str | None:
        """Which one of `ATTENTION` a Linear of this name is; None where it is none."""
        return next((role for role in ATTENTION if _ends(module, getattr(self, role))), None)


FAMILIES: Registry[Family] = Registry("model family", "optkit.families", {}, lambda thing: isinstance(thing, Family))


def family_of(config: Config) -> Family:
    """The record of a configuration's `model_type`, or the usual names."""
    kind = _field(config, ("model_type",))[1]
    return FAMILIES.get(kind) if kind in FAMILIES.names() else Family()


def records() -> dict[str, Any]:
    """Every record that there is, as the key of a step takes it."""
    return {name: asdict(family) for name, family in FAMILIES.working()}


@dataclass(frozen=True)
class Layers:
    """Where the layers of an encoder are: the lists that number them, such as `bert.encoder.layer`."""

    lists: frozenset[str]

    @classmethod
    def among(cls, products: Iterable[str], told: str = "") -> "Layers":
        """Find them: most of a model's products are in the layers of its encoder.

        Where a name has several numbers, the first counts, since layers may hold lists of their own. There may be more than
        one list side by side, such as XLM's of attentions and of feed-forward blocks. A head or embeddings may have lists
        too, of less.

        Args:
            products: names of the modules that the products are in.
            told: where a record says that the layers are.
        """
        numbers: dict[str, list[str]] = {}
        for place in filter(None, map(_place, [f"{told}.0"] if told else products)):
            numbers.setdefault(place[1], []).append(place[2])
        beside = {name: (name.rpartition(".")[0], frozenset(own)) for name, own in numbers.items()}
        counts = Counter(beside[name] for name, own in numbers.items() for _ in own)
        most = [group for group, _ in counts.most_common(1)]
        return cls(frozenset(name for name, group in beside.items() if group in most))

    def number(self, name: str) -> int | None:
        """The layer that a module, parameter or buffer of this name belongs to, from 0; None outside of the layers."""
        place = _place(name)
        return int(place[2]) if place and _ends(place[1], self.lists) else None


def plain(name: str) -> str:
    """A module's name as both sides have it: the exporter calls `mlp.0` of a `Sequential` `mlp.mlp.0`."""
    return re.sub(r"(^|\.)([^.]+)\.\2\.(?=\d)", r"\1\2.", name)


def _place(name: str) -> re.Match[str] | None:
    """The list and the number in a name; where there are several, the outermost."""
    return re.match(r"(.+?)\.(\d+)(?=\.|$)", plain(name))


def _ends(name: str, ends: Iterable[str]) -> bool:
    return any(f".{name}".endswith(f".{end}") for end in ends)


def _field(config: Config, names: Names) -> tuple[str, Any]:
    """The first of these fields that a configuration has, and its value; None as the first one's where it has none."""
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
    """Number of layers. It raises `InputError` where no field says it; so do `width` and `heads`."""
    return _size(config, family_of(config).depth, least=0)


def width(config: Config) -> int:
    """Channels of a hidden state."""
    return _size(config, family_of(config).width)


def heads(config: Config) -> int:
    """Attention heads of a layer."""
    return _size(config, family_of(config).heads)


def positions(config: Config) -> int | None:
    """Rows of the table of positions, or None where there is none."""
    rows: int | None = _field(config, family_of(config).positions)[1]
    return rows


def token_types(config: Config) -> int:
    """How many kinds of token the model tells apart; 0 where it knows nothing of them."""
    return _field(config, family_of(config).token_types)[1] or 0


def activation(config: Config) -> str | None:
    """Name of the activation between the two feed-forward products."""
    name: str | None = _field(config, family_of(config).activation)[1]
    return name


def resized(config: Config, layers: int, ratio: float) -> Config:
    """A configuration of transformers with another number of layers, and narrower by a ratio."""
    family, made, own = family_of(config), copy.deepcopy(config), config.to_dict()
    setattr(made, _field(config, family.depth)[0], layers)
    for name in (*family.width, *family.inner):
        if isinstance(own.get(name), int):  # under its own name only: some configurations have aliases
            setattr(made, name, round(own[name] * ratio))
    return made


def layers_of(model: "nn.Module") -> Layers:
    """Where the layers of a model's encoder are."""
    return Layers.among(linears(model), family_of(getattr(model, "config", {})).layers)


def encoder_layers(model: "PreTrainedModel") -> "list[nn.Module]":
    """The layers of the encoder, the first one first.

    Raises:
        InputError: the configuration has another number of them.
    """
    number, layers = layers_of(model).number, depth(model.config)
    found = [
        part for name, part in model.named_modules() if number(name) is not None and number(name.rpartition(".")[0]) is None
    ]
    if len(found) != layers:
        raise InputError(
            f"{type(model).__name__}: its configuration has {layers} layers, its modules are {len(found)}; expected one for "
            "each. Layers that share their weights, are in parts, or have no Linear modules can neither become a student "
            "nor be followed by one: leave Distill and representation_epochs out for this model"
        )
    return found


def encoder_linears(model: "nn.Module") -> "dict[str, nn.Linear]":
    """The Linear modules of the encoder's layers by name; pooler, classifier and embeddings are not among them."""
    number = layers_of(model).number
    return {name: linear for name, linear in linears(model).items() if number(name) is not None}


def attention_linears(model: "PreTrainedModel") -> "dict[str, nn.Linear]":
    """The last layer's Linear modules by their role in `ATTENTION`, those that are found."""
    family, found = family_of(model.config), dict[str, Any]()
    for name, linear in linears(encoder_layers(model)[-1]).items():
        if role := family.role(name):
            found.setdefault(role, linear)
    return found


def prunable(model: "nn.Module") -> "dict[str, nn.Linear]":
    """Those of `encoder_linears` that the hardware can take as 2:4."""
    from optkit.models import two_to_four

    return {name: linear for name, linear in encoder_linears(model).items() if two_to_four.fits(linear.weight)}


def linears(module: "nn.Module") -> "dict[str, nn.Linear]":
    """The Linear modules in a module by name."""
    from torch import nn

    return {name: part for name, part in module.named_modules() if isinstance(part, nn.Linear)}


def word_embeddings(model: "PreTrainedModel") -> "torch.Tensor":
    """The table of word embeddings [words, width]."""
    return cast("nn.Embedding", model.get_input_embeddings()).weight


def first_position(model: "PreTrainedModel") -> int:
    """The position id of the first token."""
    told = family_of(model.config).first_position
    if told is not None:
        return told
    embeddings = getattr(model.base_model, "embeddings", None)
    offset = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    return 0 if offset is None else offset + 1


def longest_input(model: "PreTrainedModel") -> int | None:
    """How many tokens the model has positions for, or None where it has no table of them."""
    table = positions(model.config)
    return None if table is None else table - first_position(model)
