"""What may differ between model families, as one record: names of modules and of configuration fields."""

from collections.abc import Iterable
from dataclasses import dataclass

Names = tuple[str, ...]
VECTORS = ("query", "key", "value")
ATTENTION = (*VECTORS, "attention_output")
"""Roles of an attention block's Linear modules: the outputs of the first three and the inputs of the last are split into
heads."""
_ROLES = ("fused", *ATTENTION, "by_head", "gated")


@dataclass(frozen=True)
class Family:
    """Names of a family's modules and configuration fields, the first one present being used. The defaults are the usual
    ones.

        FAMILIES.register("my-encoder", Family(depth=("blocks",), query=("ask",)))

    A field that is left out keeps its default.
    """

    layers: str = ""
    """Name or suffix of the module list of the encoder's layers, such as `bert.encoder.layer`; empty to detect it."""
    query: Names = ("query", "query_proj", "q_lin", "q_proj", "q_head", "q")
    key: Names = ("key", "key_proj", "k_lin", "k_proj", "k_head", "k")
    value: Names = ("value", "value_proj", "v_lin", "v_proj", "v_head", "v")
    attention_output: Names = (
        *("attention.output.dense", "attention.dense", "out_lin", "out_proj", "o_proj", "post_proj", "attn.o"),
        *("SelfAttention.o", "attn.Wo"),
    )
    """Name suffixes of the Linear modules with this role in a layer; likewise `query`, `key` and `value`."""
    fused: Names = ("Wqkv", "qkv_proj", "qkv", "query_key_value")
    """Name suffixes of a Linear module that gives queries, keys and values at once, one after the other."""
    fused_by_head: bool = False
    """Whether `fused` gives them head by head, rather than all queries first."""
    by_head: Names = ("pos_query_proj", "pos_key_proj")
    """Name suffixes of further modules and parameters of attention whose outputs are split into heads."""
    gated: Names = ("Wi", "gate_up_proj", "up_gate_proj")
    """Name suffixes of a Linear module that gives both factors of a gated feed-forward, one after the other."""
    depth: Names = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
    """Configuration fields for the number of layers. The tuples that follow name configuration fields too."""
    width: Names = ("hidden_size", "dim", "d_model", "n_embd", "emb_dim")
    heads: Names = ("num_attention_heads", "n_heads", "n_head", "num_heads")
    inner: Names = (
        *("intermediate_size", "hidden_dim", "d_inner", "d_ff", "n_inner", "embedding_size", "input_embedding_size"),
        *("pooler_hidden_size", "true_hidden_size", "intra_bottleneck_size", "head_dim", "d_head", "d_kv"),
    )
    """Configuration fields of sizes that scale with the width; all that are present are scaled."""
    key_heads: Names = ("num_key_value_heads", "num_attention_heads", "n_heads", "n_head", "num_heads")
    positions: Names = ("max_position_embeddings", "n_positions")
    windows: Names = ("local_attention", "sliding_window", "position_buckets")
    """Configuration fields of distances, in tokens, beyond which attention is cut off or coarser; all that are present."""
    rotary: Names = ("rope_parameters", "rope_theta", "rotary_value")
    """Configuration fields of which one is present where queries and keys are rotated by their positions."""
    per_layer: Names = ("layer_types",)
    """Configuration fields with an entry for each layer."""
    token_types: Names = ("type_vocab_size",)
    groups: Names = ("num_hidden_groups",)
    """Configuration fields for the number of layers with weights of their own, where several layers share theirs."""
    activation: Names = ("hidden_act", "activation", "hidden_activation", "activation_function", "ff_activation")
    prepare: str = ""
    """Function, as `module:name`, that changes a new model of the family in place before anything is done with it."""
    refused: str = ""
    """Reason why optkit cannot take the family, as the end of a sentence; empty where it can."""
    first_position: int | None = None
    """Position id of the first token of a model that counts every token; None to detect it (RoBERTa-like models start after
    the padding id, and do not count padding)."""

    def role(self, module: str) -> str | None:
        """Return the role of a Linear module or parameter by its name: the field above that lists it; None if none does."""
        return next((role for role in _ROLES if ends_with(module, getattr(self, role))), None)


def ends_with(name: str, ends: Iterable[str]) -> bool:
    """Return whether a dotted name ends with one of others, whole parts at a time."""
    return any(f".{name}".endswith(f".{end}") for end in ends)
