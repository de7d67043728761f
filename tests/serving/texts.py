"""Tasks of odd texts, tokenizers of several kinds, and text pipelines around toy engines."""

import json

from tokenizers import ByteLevelBPETokenizer
from transformers import BertTokenizerFast, RobertaTokenizerFast

from optkit.evaluation.text_sample import write
from optkit.serving import ensemble
from optkit.serving.config import ModelConfig
from optkit.tasks import registry

from . import toy

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,?!'"
ODD = (
    "a plain sentence.",
    "  blanks   before,\tbetween\u00a0and after \r ",
    "Ünïcödé: naïve café, ЯЗЫК, 日本語, 🙂🙂, e\u0301 and \u200bnothing\u200d",
    "[CLS] and [SEP] [MASK] <s> </s> are words of a text too",
    "a" * 5000,
    "word " * 3000,
    "x",
    "\u0000\u0007 control \ufffd",
    "ﬁ ligature, ½, ＦＵＬＬ width",
)
EMPTY = ("", " ", "\t\n \u00a0")
PASSAGE = "the cab is big. a dog hid it! we go: "


def letters(length=64):
    """WordPiece whose every letter is a token."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    return BertTokenizerFast(vocab={piece: i for i, piece in enumerate(pieces)}, model_max_length=length)


def byte_level():
    """A tokenizer like RoBERTa's: bytes, other special tokens, pads with 1, no token types."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([*ODD, PASSAGE], 400, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    stored = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in stored["merges"]]
    return RobertaTokenizerFast(vocab=stored["vocab"], merges=merges, model_max_length=48)


def as_letters():
    """Reads special tokens that stand in a text as the letters that they are written with."""
    return BertTokenizerFast(vocab=letters().get_vocab(), model_max_length=64, split_special_tokens=True)


def classification(folder, pair=False):
    """Odd texts in two classes."""
    folder.mkdir()
    for split in ("train", "dev"):
        rows = [
            {"text": one, **({"text_pair": two} if pair else {}), "label": ("no", "yes", "maybe")[number % 3]}
            for number, (one, two) in enumerate(zip(ODD, ODD[::-1], strict=True))
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return registry.load("classification", folder)


def questions(folder):
    """Questions on passages of one window and of many; odd ones among them."""
    folder.mkdir()
    contexts = (PASSAGE, PASSAGE * 9, f"  {PASSAGE}\u00a0Ünïcödé 日本語 🙂 e\u0301 " * 4, PASSAGE * 40)
    paragraphs = [
        {
            "context": context,
            "qas": [
                {"id": f"{number}-{question}", "question": question, "answers": [{"text": "cab", "answer_start": at}]}
                for question in ("what is big?", "  who\t hid 🙂 it ", "w")
                if (at := context.index("cab")) >= 0
            ],
        }
        for number, context in enumerate(contexts)
    ]
    for split in ("train", "dev"):
        (folder / f"{split}.json").write_text(json.dumps({"version": "1.1", "data": [{"paragraphs": paragraphs}]}))
    return registry.load("qa", folder)


def source(folder, task, tokenizer):
    """What a result keeps for serving text; gives the folder with tokenizer and settings."""
    folder.mkdir()
    write(task, tokenizer, {}, folder)
    return folder / "text"


def place(root, folder, name, task, tokenizer, **settings):
    """Put a toy engine with its text pipeline into a repository; gives the engine."""
    engine = toy.folder(folder / f"{name}-engine", head=task.head)
    toy.place(root, engine, name, task.logits_shape, **{"max_batch_size": 64} | settings)
    config = ModelConfig(name, ("input_ids", "attention_mask"), task.logits_shape, **{"max_batch_size": 64} | settings)
    ensemble.stage(root, source(folder / name, task, tokenizer), name, config)
    return toy.load(engine)
