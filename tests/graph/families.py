"""Tiny random classifiers of many families, for tests: small, but with every part that their kind has."""

from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

SIZES = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
BUCKETS = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, "norm_rel_ebd": "layer_norm"}
NO_PLACES = {"position_biased_input": False, "type_vocab_size": 0, "max_position_embeddings": 64}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "albert": ("Albert", {**SIZES, "embedding_size": 16, "max_position_embeddings": 64}),
    "bigbird": ("BigBird", {**SIZES, "block_size": 4, "max_position_embeddings": 64}),
    "convbert": ("ConvBert", {**SIZES, "embedding_size": 16, "max_position_embeddings": 64}),
    "deberta": ("Deberta", {**SIZES, **NO_PLACES, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "deberta-v2": ("DebertaV2", {**SIZES, **NO_PLACES, **BUCKETS, "conv_kernel_size": 3, "conv_act": "gelu"}),
    "deberta-v3": ("DebertaV2", {**SIZES, **NO_PLACES, **BUCKETS, "share_att_key": True}),
    "distilbert": ("DistilBert", {"vocab_size": 60, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48}),
    "eurobert": ("EuroBert", {**SIZES, **TOKENS, "num_key_value_heads": 1, "max_position_embeddings": 64}),
    "mobilebert": (
        "MobileBert",
        {**SIZES, "embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16, "max_position_embeddings": 64},
    ),
    "modernbert": (
        "ModernBert",
        {**SIZES, **TOKENS, "local_attention": 8, "global_attn_every_n_layers": 2, "max_position_embeddings": 64},
    ),
    "modernbert-mean": (
        "ModernBert",
        {**SIZES, **TOKENS, "local_attention": 8, "classifier_pooling": "mean", "max_position_embeddings": 64},
    ),
    "mpnet": ("MPNet", {**SIZES, "pad_token_id": 1, "max_position_embeddings": 66}),
    "nomic": ("NomicBert", {**SIZES, "max_position_embeddings": 64}),
    "roformer": ("RoFormer", {**SIZES, "embedding_size": 16, "max_position_embeddings": 64}),
    "xlm": ("XLM", {"vocab_size": 60, "emb_dim": 32, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 64}),
    "xlm-roberta": ("XLMRoberta", {**SIZES, "pad_token_id": 1, "max_position_embeddings": 66}),
}


def classifier(name: str, **changes: Any) -> PreTrainedModel:
    """A classifier whose weights are large enough for every part to move its logits."""
    family, sizes = FAMILIES[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**sizes, **changes})
    model: PreTrainedModel = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=module.weight.shape[1] ** -0.5)
    return model


def texts(model: PreTrainedModel, batch: int, sequence: int) -> dict[str, torch.Tensor]:
    """Random tokens, padded by one more in every row, as the model takes them."""
    generator = torch.Generator().manual_seed(sequence)
    ids = torch.randint(5, 60, (batch, sequence), generator=generator)
    mask = torch.stack([(torch.arange(sequence) < max(2, sequence - row)).long() for row in range(batch)])
    padding = model.config.pad_token_id or 0
    return {"input_ids": torch.where(mask == 1, ids, padding), "attention_mask": mask}
