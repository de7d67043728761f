"""Folders of sentence-transformers with a tiny model, as its own library writes them."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

WORDS = ("a", "cat", "dog", "sat", "on", "the", "mat", "ran", "query", "passage", ":", "red", "blue")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def encoder(folder: Path, **settings: Any) -> Path:
    """Write a tiny BERT of random weights, the same ones every time, with its tokenizer: no head."""
    torch.manual_seed(0)
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *WORDS))}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=32, initializer_range=0.3, **sizes | settings)
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab=vocabulary, model_max_length=32).save_pretrained(folder)
    return folder


def sentence_model(folder: Path, pooling: str = "mean", normalize: bool = True, **settings: Any) -> Path:
    """Write a folder with the modules of sentence-transformers.

    Args:
        folder: receives it.
        pooling: mode, as sentence-transformers names it.
        normalize: whether there is a Normalize module.
        settings: of `config_sentence_transformers.json`.
    """
    encoder(folder)
    kinds = ["Transformer", "Pooling", *["Normalize"] * normalize]
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": f"{index}_{kind}" if index else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for index, kind in enumerate(kinds)
    ]
    write(folder / "modules.json", modules)
    write(folder / "sentence_bert_config.json", {"max_seq_length": 24, "do_lower_case": False})
    (folder / "1_Pooling").mkdir()
    write(folder / "1_Pooling" / "config.json", {"embedding_dimension": 32, "pooling_mode": pooling})
    write(folder / "config_sentence_transformers.json", settings)
    return folder


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))
