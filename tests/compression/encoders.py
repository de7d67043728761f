"""Random encoders whose structure differs from BERT's: fused or shared projections, shared layers, layers in parts."""

import torch
import transformers
from transformers import PreTrainedModel


def encoder(name: str, **changes: object) -> PreTrainedModel:
    """A random classifier of a family with a structure of its own; width 32, 4 heads."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 48}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    if name == "XLM":
        sizes, tokens = {"emb_dim": 32, "n_layers": 4, "n_heads": 4}, {}
    given = {"vocab_size": 40, "max_position_embeddings": 64, **sizes, **tokens, **changes}
    model = getattr(transformers, f"{name}ForSequenceClassification")(getattr(transformers, f"{name}Config")(**given))
    for parameter in model.parameters():
        if parameter.dim() > 1 and parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    return model.eval()


RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
OTHERS: dict[str, dict[str, object]] = {
    "Albert": {"embedding_size": 16},
    "ConvBert": {"embedding_size": 16},
    "Deberta": RELATIVE,
    "DebertaV2": {**RELATIVE, "share_att_key": True, "position_buckets": 8},
    "EuroBert": {"num_key_value_heads": 2},
    "ModernBert": {"local_attention": 8},
    "RoFormer": {"embedding_size": 16},
    "XLM": {},
}
