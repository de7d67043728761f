"""A model whose answer to a text moves with the padding behind it."""

import torch
from transformers import XLMConfig, XLMForSequenceClassification


def xlm(words: int) -> XLMForSequenceClassification:
    """A classifier that reads the last place of a row, padding or not."""
    torch.manual_seed(0)
    sizes: dict[str, object] = {"emb_dim": 32, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 64}
    sizes |= {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    config = XLMConfig(vocab_size=words, **sizes, pad_index=0, pad_token_id=0, summary_type="last")
    return XLMForSequenceClassification(config).eval()
