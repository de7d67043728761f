"""What the small sample tasks share: rows that a seeded grammar writes, and a narrow BERT that trains on them in seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from optkit.tasks import sample
from optkit.tasks.base import OwnModel, Split
from optkit.tasks.data.sample_grammar import Claim, Clause, Node, Pair, sentence
from optkit.tasks.data.tables import Table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MAX_LENGTH = 48
"""Longest input in tokens."""
SIZES: dict[Split, int] = {"train": 3000, "dev": 500}
"""Rows by split."""
TRAINING = {"epochs": 4, "learning_rate": 2e-3, "batch_size": 32, "warmup_ratio": 0.1, "weight_decay": 0.01}
"""Settings that the small BERT's FP32 baseline trains with."""


def own_model(names: Sequence[str], tokenizer: PreTrainedTokenizerFast | None = None, **settings: Any) -> OwnModel:
    """Return a BERT of four layers at half the width of the sample's.

    Args:
        names: of the entries on the logits' last axis.
        tokenizer: other words than the sample's; None for those.
        settings: further ones of its configuration.
    """
    config, words = sample.model_config(), tokenizer or sample.tokenizer()
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4, "max_position_embeddings": MAX_LENGTH}
    ids = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    config.update({**sizes, **ids, "vocab_size": len(words), "initializer_range": 0.1, **settings})
    return OwnModel(config, words, lambda model: None, TRAINING)


def tables(name: str, label: Callable[[list[Clause], Random], Any]) -> dict[Split, Table]:
    """Return sentences of the grammar with something to learn of each, the same ones everywhere.

    Args:
        name: of the sample, for messages.
        label: function from a sentence's clauses to what is learned.
    """
    found: dict[Split, Table] = {}
    seen: set[str] = set()
    for seed, split in enumerate(SIZES, start=1):
        random, texts, labels = Random(seed), list[str](), list[Any]()
        while len(texts) < SIZES[split]:
            node = sentence(random)
            text = sample.written(node)
            if text not in seen and sample.length(text) <= MAX_LENGTH:
                seen.add(text)
                texts.append(text)
                labels.append(label(list(clauses(node)), random))
        columns = {"text": texts, "label": labels}
        found[split] = Table(f"{name} {split}", columns, range(1, len(texts) + 1), "row")
    return found


def clauses(node: Node) -> Iterator[Clause]:
    """Yield the clauses of a sentence, in order."""
    if isinstance(node, Clause):
        yield node
    elif isinstance(node, Claim):
        yield from clauses(node.content)
    elif isinstance(node, Pair):
        yield from clauses(node.first)
        yield from clauses(node.second)
