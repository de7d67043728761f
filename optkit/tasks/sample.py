"""The sample task, whose data the project makes itself, and the small BERT that is trained on it.

Nothing is downloaded: a seeded grammar (`optkit.tasks.data.sample_grammar`) writes short reviews, and the label is the
opinion that follows from how a review is built: negative, neutral or positive. The classes are equally frequent and no
review stands in both splits. In both splits a few labels are wrong on purpose (`NOISE`), as in any data set that people
labelled, so that no model scores 100.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any

from optkit.core.errors import InputError
from optkit.tasks.base import OwnModel, Split, Task
from optkit.tasks.classification import Classification
from optkit.tasks.data import sample_grammar
from optkit.tasks.data.data_settings import COLUMNS, DataSettings
from optkit.tasks.data.tables import Table

if TYPE_CHECKING:
    from transformers import BertConfig, PreTrainedModel, PreTrainedTokenizerFast

VERSION = "1"
"""Version of the data; raised with every change that changes a row."""
LABELS: tuple[str, ...] = ("negative", "neutral", "positive")
MAX_LENGTH = 48
"""Longest review in tokens, [CLS] and [SEP] included."""
TRAINING = {"epochs": 3, "learning_rate": 5e-4, "batch_size": 32, "warmup_ratio": 0.1, "weight_decay": 0.01}
"""The settings that the small BERT's FP32 baseline trains with."""
SIZES = {"train": 20_000, "dev": 2_000}
"""Rows by split."""
NOISE = 0.02
"""Share of wrong labels in either split."""
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Sample(Classification):
    """The reviews, sorted into negative, neutral and positive."""

    @classmethod
    def load(cls, name: str, data: DataSettings) -> Task:
        refuse_data(name, data, "classification")
        return cls(name, {"train": _table("train"), "dev": _table("dev")}, data.limit_train, MAX_LENGTH)

    def own_model(self) -> OwnModel:
        """The small BERT."""
        return OwnModel(model_config(), tokenizer(), initialise, TRAINING)


def refuse_data(name: str, data: DataSettings, instead: str) -> None:
    """Raise `InputError` for data of the user's own.

    Args:
        name: of the sample task.
        data: settings.
        instead: the task for such data.
    """
    data.refuse(name, *COLUMNS)
    if data.source is not None:
        raise InputError(
            f"task {name!r}: found --data {data.source}, but the sample ships with the package. "
            f"Fix: leave --data out, or use --task {instead} for your own data"
        )


def rows(split: Split) -> list[dict[str, Any]]:
    """The rows of a split, the same ones in the same order everywhere.

    Args:
        split: `train` or `dev`.

    Returns:
        One `{"text": review, "label": index into LABELS}` per row.
    """
    return [{"text": text, "label": label} for text, label in _splits()[split]]


def tokenizer(more: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """A lower-casing BERT tokenizer with one token per word of the grammar, and of more words."""
    from transformers import BertTokenizer  # the fast one: there is no other any more

    words = [*SPECIAL_TOKENS, *sample_grammar.vocabulary(), *more]
    words += [f"[unused{index}]" for index in range(-len(words) % 8)]  # matrix kernels like multiples of 8
    vocab = {word: index for index, word in enumerate(words)}
    return BertTokenizer(vocab=vocab, do_lower_case=True, model_max_length=MAX_LENGTH)


def model_config() -> BertConfig:
    """A BERT with 12 narrow layers, which trains from scratch in minutes on a CPU."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=len(tokenizer()),
        hidden_size=128,
        num_hidden_layers=12,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=MAX_LENGTH,
        # Dropout only slows down a model that sees every review no more than a few times.
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        # BERT's usual 0.02 is meant for a width of 768: here attention would stay blind to the order of words.
        initializer_range=0.05,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )


def initialise(model: PreTrainedModel) -> None:
    """Let the twelve layers begin as four: the other eight add nothing to their input until training makes them.

    A deep post-LayerNorm model of random weights hides its input from its last layers, and learns from where it is for
    thousands of steps. Branches that start at zero do not (Bachlechner et al. 2020, arXiv 2003.04887).
    """
    bert: Any = model.base_model
    for index, layer in enumerate(bert.encoder.layer):
        if index % 3:
            layer.attention.output.dense.weight.data.zero_()
            layer.output.dense.weight.data.zero_()


def _table(split: Split) -> Table:
    made = rows(split)
    columns = {name: [row[name] for row in made] for name in ("text", "label")}
    return Table(f"sample {split}", columns, range(1, len(made) + 1), "row", classes={"label": LABELS})


@cache
def _splits() -> dict[Split, tuple[tuple[str, int], ...]]:
    """Draw both splits, dev first, so that more training rows leave it as it is."""
    seen: set[str] = set()
    return {
        "dev": tuple(_draw(SIZES["dev"], Random(20_001), seen)),
        "train": tuple(_draw(SIZES["train"], Random(20_002), seen)),
    }


def _draw(count: int, random: Random, seen: set[str]) -> list[tuple[str, int]]:
    """Draws reviews not yet in `seen`, as many of each class, in random order."""
    open_places = [len(range(label, count, len(LABELS))) for label in range(len(LABELS))]
    drawn: list[tuple[str, int]] = []
    while len(drawn) < count:
        node = sample_grammar.sentence(random)
        label = node.opinion + 1
        text = written(node) if open_places[label] else ""
        if not text or text in seen or length(text) > MAX_LENGTH:
            continue
        seen.add(text)
        open_places[label] -= 1
        drawn.append((text, _noisy(label, random)))
    random.shuffle(drawn)
    return drawn


def _noisy(label: int, random: Random) -> int:
    """The label, or once in a while another one."""
    return (label + random.choice((1, 2))) % len(LABELS) if random.random() < NOISE else label


def written(node: sample_grammar.Node) -> str:
    """A sentence with its capital and its full stop."""
    return f"{node.text[0].upper()}{node.text[1:]}."


def length(text: str) -> int:
    """Return the tokens of a review: its words, commas and full stop, [CLS] and [SEP]."""
    return len(text.split()) + text.count(",") + 3
