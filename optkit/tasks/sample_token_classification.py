"""The sample task for taggers: who speaks and what is said of things, marked in the reviews of the sample's grammar.

A speaker is marked with the character before it ("lying critic"), an opinion with the words that turn it round or strengthen
it ("not very good"), as `praise`, `blame` or `neutral` by what it says. A few entities lack their tags on purpose (`NOISE`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from random import Random
from typing import TYPE_CHECKING

from optkit.tasks import sample
from optkit.tasks.base import OwnModel, Split, Task
from optkit.tasks.data import sample_grammar
from optkit.tasks.data.data_settings import DataSettings
from optkit.tasks.data.sample_grammar import Claim, Clause, Node, Pair
from optkit.tasks.data.tables import Table
from optkit.tasks.token_classification import TokenClassification

if TYPE_CHECKING:
    from transformers import BertConfig

TRAINING = {"epochs": 3, "learning_rate": 2e-3, "batch_size": 32}
"""Settings that the small BERT's FP32 baseline trains with: seconds on a CPU."""
SIZES: dict[Split, int] = {"train": 3_000, "dev": 500}
"""Rows by split."""
NOISE = 0.03
"""Share of entities without their tags in either split."""
_OPINIONS = {-1: "blame", 0: "neutral", 1: "praise"}
Token = tuple[str, str]
"""A word with its tag."""


class SampleTokenClassification(TokenClassification):
    """The reviews, with speakers and opinions marked."""

    @classmethod
    def load(cls, name: str, data: DataSettings) -> Task:
        from optkit.tasks.data import tags

        sample.refuse_data(name, data, "token_classification")
        splits, labels = tags.read({"train": _table("train"), "dev": _table("dev")}, data)
        return cls(name, splits, labels, data.limit_train, sample.MAX_LENGTH, cls.chosen(data)["pieces"])

    def own_model(self) -> OwnModel:
        """A BERT of four narrow layers."""
        return OwnModel(model_config(self.labels), sample.tokenizer(), lambda model: None, TRAINING)


def model_config(labels: tuple[str, ...]) -> BertConfig:
    """The sample's configuration, narrower and of four layers."""
    config = sample.model_config()
    config.update({"hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 128, "initializer_range": 0.1})
    config.update({"id2label": dict(enumerate(labels)), "label2id": {label: at for at, label in enumerate(labels)}})
    return config


def tagged(node: Node) -> Iterator[Token]:
    """Yield the words of a sentence, its commas too, with their tags."""
    if isinstance(node, Pair):
        yield from tagged(node.first)
        yield from _outside("," if node.comma else "", node.connective)
        yield from tagged(node.second)
    elif isinstance(node, Claim):
        yield from _outside("the")
        yield from _entity("speaker", node.character, node.speaker)
        yield from _outside(node.verb, "that")
        yield from tagged(node.content)
    elif isinstance(node, Clause):
        yield from _outside("the", node.noun, "was")
        yield from _entity(_OPINIONS[node.opinion], node.degree, node.adjective)


def _outside(*phrases: str) -> Iterator[Token]:
    yield from ((word, "O") for phrase in phrases for word in phrase.split())


def _entity(kind: str, *phrases: str) -> Iterator[Token]:
    words = [word for phrase in phrases for word in phrase.split()]
    yield from ((word, f"{'I' if place else 'B'}-{kind}") for place, word in enumerate(words))


@cache
def _rows() -> dict[Split, list[list[Token]]]:
    """Draw both splits; no sentence comes twice."""
    random, seen = Random(20_003), set[str]()
    return {split: list(_draw(SIZES[split], random, seen)) for split in ("dev", "train")}


def _draw(count: int, random: Random, seen: set[str]) -> Iterator[list[Token]]:
    while count:
        node = sample_grammar.sentence(random)
        tokens = [*tagged(node), (".", "O")]
        if node.text in seen or len(tokens) + 2 > sample.MAX_LENGTH:
            continue
        seen.add(node.text)
        count -= 1
        yield _noisy(tokens, random)


def _noisy(tokens: list[Token], random: Random) -> list[Token]:
    """The tokens, once in a while without the tags of an entity."""
    found: list[Token] = []
    lost = False
    for word, tag in tokens:
        lost = random.random() < NOISE if tag.startswith("B-") else lost
        found.append((word, "O" if lost else tag))
    return found


def _table(split: Split) -> Table:
    rows = _rows()[split]
    columns = {name: [[token[at] for token in row] for row in rows] for at, name in enumerate(("tokens", "tags"))}
    return Table(f"sample_token_classification {split}", columns, range(1, len(rows) + 1), "row")
