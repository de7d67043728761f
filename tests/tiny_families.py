"""Tiny random models of many families, each with a tokenizer of its family's kind that is trained in memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from optkit.core.atomic import write_text

LENGTH, VOCABULARY = 32, 300
OPINIONS = {"bad": ("awful", "dull", "poor"), "good": ("bright", "lovely", "sharp")}
OTHERS = ("cast", "ending", "film", "music", "plot", "scene", "story", "with", "this", "the")
BERT = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROBERTA = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": LENGTH + 2,
    "initializer_range": 0.1,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
"""Sizes under BERT's names: what attention, 2:4 sparsity and students need and no more."""


def texts() -> list[str]:
    """Return all words that rows have, in short sentences."""
    random = Random(0)
    words = [*OTHERS, *(word for own in OPINIONS.values() for word in own)]
    return [" ".join(random.choices(words, k=6)) for _ in range(200)]


def write_data(folder: Path, train: int = 256, dev: int = 64) -> Path:
    """Write `train.tsv` and `dev.tsv`: two classes, told apart by one word of each text."""
    random = Random(0)
    for split, size in {"train": train, "dev": dev}.items():
        rows = ["sentence\tlabel"]
        for number in range(size):
            label = sorted(OPINIONS)[number % 2]
            words = [*random.choices(OTHERS, k=random.randint(1, 4)), random.choice(OPINIONS[label])]
            random.shuffle(words)
            rows.append(f"{' '.join(words)}\t{label}")
        write_text(folder / f"{split}.tsv", "\n".join(rows) + "\n")
    return folder


def word_pieces(segments: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer as BERT's, with or without segments."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=[*BERT.values()], show_progress=False)
    return _fast(made, trainer, BERT, segments)


def bytes_pairs() -> PreTrainedTokenizerFast:
    """A tokenizer as RoBERTa's: pairs of bytes, a blank being part of the word after it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[*ROBERTA.values()], initial_alphabet=alphabet, show_progress=False
    )
    return _fast(made, trainer, ROBERTA, segments=False)


def unigrams(names: Mapping[str, str] = ROBERTA, segments: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer as SentencePiece's, with the special tokens of XLM-R or of ALBERT."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY, special_tokens=[*names.values()], unk_token=names["unk"], show_progress=False
    )
    return _fast(made, trainer, names, segments)


def _fast(made: Tokenizer, trainer: Any, names: Mapping[str, str], segments: bool) -> PreTrainedTokenizerFast:
    made.train_from_iterator(texts(), trainer)
    cls, sep, second = names["cls"], names["sep"], ":1" if segments else ""
    ends = [(token, made.token_to_id(token)) for token in (cls, sep)]
    made.post_processor = processors.TemplateProcessing(f"{cls} $A {sep}", f"{cls} $A {sep} $B{second} {sep}{second}", ends)
    inputs = ["input_ids", "token_type_ids", "attention_mask"] if segments else ["input_ids", "attention_mask"]
    named = {f"{name}_token": token for name, token in names.items()}
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=LENGTH, model_input_names=inputs, **named)


@dataclass(frozen=True)
class Maker:
    """How a tiny model of a family is made."""

    name: str
    """Name in transformers: its classes are `<name>Config` and `<name>Model`."""
    tokenizer: Callable[[], PreTrainedTokenizerFast] = word_pieces
    sizes: Mapping[str, Any] = field(default_factory=dict)
    """What differs from `SIZES`; None leaves a size out."""

    def write(self, folder: Path) -> Path:
        """Save the model, without a head, and its tokenizer into a folder; the same at every call."""
        tokenizer = self.tokenizer()
        ends = {"bos": "cls", "eos": "sep"}  # as families call them that have no classes
        names = {name: ends.get(name, name) for name in ("pad", "bos", "eos", "cls", "sep", "mask")}
        special = {f"{name}_token_id": getattr(tokenizer, f"{own}_token_id") for name, own in names.items()}
        given = {**SIZES, **special, **self.sizes}
        config = getattr(transformers, f"{self.name}Config")(**{k: v for k, v in given.items() if v is not None})
        torch.manual_seed(0)
        getattr(transformers, f"{self.name}Model")(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder


ONE_SEGMENT = {"type_vocab_size": 1, "max_position_embeddings": LENGTH + 4}
"""What RoBERTa and its kin have: one kind of segment, and positions counted from the padding's id on."""
DEBERTA = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "type_vocab_size": 0,
    "position_biased_input": False,
}
DEBERTA_V2 = {**DEBERTA, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True}


def plain() -> PreTrainedTokenizerFast:
    """Word pieces without segments."""
    return word_pieces(segments=False)


def sentence_pieces() -> PreTrainedTokenizerFast:
    """Unigrams with BERT's special tokens and segments."""
    return unigrams(BERT, segments=True)


WORDS = {**dict.fromkeys(SIZES), "vocab_size": VOCABULARY}
"""For families that have other names for all sizes but that of the vocabulary."""

FAMILIES: dict[str, Maker] = {
    "albert": Maker("Albert", sentence_pieces, {"embedding_size": 16}),
    "bert": Maker("Bert"),
    "bigbird": Maker("BigBird", sizes={"attention_type": "original_full"}),
    "camembert": Maker("Camembert", unigrams, ONE_SEGMENT),
    "convbert": Maker("ConvBert", sizes={"embedding_size": 32}),
    "deberta": Maker("Deberta", bytes_pairs, DEBERTA),
    "debertav2": Maker("DebertaV2", sentence_pieces, {**DEBERTA_V2, "conv_kernel_size": 3, "conv_act": "gelu"}),
    "debertav3": Maker("DebertaV2", sentence_pieces, DEBERTA_V2),
    "distilbert": Maker(
        "DistilBert",
        plain,
        {
            **WORDS,
            "dim": 32,
            "n_layers": 3,
            "n_heads": 2,
            "hidden_dim": 64,
            "max_position_embeddings": LENGTH,
            "initializer_range": 0.1,
            "dropout": 0.0,
            "attention_dropout": 0.0,
        },
    ),
    "electra": Maker("Electra", sizes={"embedding_size": 16}),
    "ernie": Maker("Ernie"),
    "eurobert": Maker("EuroBert", plain, {"num_key_value_heads": 2}),
    "funnel": Maker(
        "Funnel", sizes={**WORDS, "block_sizes": [2, 2], "d_model": 32, "n_head": 2, "d_head": 16, "d_inner": 64}
    ),
    "gpt2": Maker("GPT2", bytes_pairs, {**WORDS, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": LENGTH}),
    "jinabert": Maker("JinaEmbeddingsV3", unigrams),
    "layoutlm": Maker("LayoutLM"),
    "longformer": Maker("Longformer", bytes_pairs, {**ONE_SEGMENT, "attention_window": 8}),
    "mobilebert": Maker(
        "MobileBert",
        sizes={"embedding_size": 32, "intra_bottleneck_size": 32, "true_hidden_size": 32, "num_feedforward_networks": 2},
    ),
    "modernbert": Maker(
        "ModernBert", plain, {"local_attention": 8, "global_attn_every_n_layers": 2, "max_position_embeddings": 64}
    ),
    "mpnet": Maker("MPNet", plain, {"max_position_embeddings": LENGTH + 4}),
    "nomic": Maker("NomicBert"),
    "qwen3": Maker("Qwen3", bytes_pairs, {"num_key_value_heads": 2, "head_dim": 16}),
    "rembert": Maker("RemBert", sentence_pieces, {"input_embedding_size": 16}),
    "roberta": Maker("Roberta", bytes_pairs, ONE_SEGMENT),
    "roformer": Maker("RoFormer", sizes={"embedding_size": 32}),
    "squeezebert": Maker("SqueezeBert", sizes={"embedding_size": 32}),
    "t5": Maker("T5", unigrams, {**WORDS, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}),
    "xlm": Maker("XLM", plain, {**WORDS, "emb_dim": 32, "n_layers": 3, "n_heads": 2, "embed_init_std": 0.1, "dropout": 0.0}),
    "xlmr": Maker("XLMRoberta", unigrams, ONE_SEGMENT),
    "xlmr_xl": Maker("XLMRobertaXL", unigrams, ONE_SEGMENT),
    "xlnet": Maker("XLNet", sentence_pieces, {**WORDS, "d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64}),
    "xmod": Maker("Xmod", unigrams, {**ONE_SEGMENT, "languages": ["en_XX"], "default_language": "en_XX"}),
}
"""Makers by the name that `docs/models.md` has for a family."""
