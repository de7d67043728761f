"""Sample of reranking: searches such as "superb soup" and short reviews to rank, in words of the sample's grammar.

A review has grade 2 if it stresses what is searched for, 1 if it says so, and 0 if it thinks otherwise or is about something
else. In both splits a few grades are wrong on purpose, so that no model scores 100.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from optkit.tasks import sample
from optkit.tasks.base import OwnModel, Split, Task
from optkit.tasks.data.data_settings import DataSettings
from optkit.tasks.data.judged import DOCUMENT, LABELS, QUERY
from optkit.tasks.data.sample_grammar import BLAME, INTENSIFIERS, NOUNS, PRAISE, Clause
from optkit.tasks.data.tables import Table
from optkit.tasks.reranking import Reranking

if TYPE_CHECKING:
    from transformers import BertConfig

QUERIES: dict[Split, int] = {"train": 300, "dev": 100}
"""Searches by split."""
DOCUMENTS = 10
"""Reviews to rank for each."""
NOISE = 0.03
"""Share of wrong grades in either split."""
TRAINING = {"epochs": 3, "learning_rate": 2e-3, "batch_size": 32, "warmup_ratio": 0.1, "weight_decay": 0.01}
"""Settings that the small BERT's FP32 baseline trains with."""
_PRAISE, _BLAME = PRAISE[:8], BLAME[:8]


class SampleReranking(Reranking):
    """The reviews, ranked for searches."""

    @classmethod
    def load(cls, name: str, data: DataSettings) -> Task:
        sample.refuse_data(name, data, "reranking")
        return cls(name, _tables(), data.limit_train, sample.MAX_LENGTH)

    def own_model(self) -> OwnModel:
        """A BERT of four narrow layers."""
        return OwnModel(model_config(), sample.tokenizer(), lambda model: None, TRAINING)


def model_config() -> BertConfig:
    """The sample's configuration, narrower, of four layers, and with one logit."""
    config = sample.model_config()
    config.update({"hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 128, "initializer_range": 0.1})
    config.update({"id2label": {0: "score"}, "label2id": {"score": 0}})
    return config


def _tables() -> dict[Split, Table]:
    """Draw the rows of both splits, the same ones everywhere, which share no search."""
    random = Random(30_001)
    # Most searches are for praise: were both as frequent, no word by itself would tell where to start learning from.
    searches = [(noun, word) for noun in NOUNS for word in (*_PRAISE, *_BLAME[:2])]
    random.shuffle(searches)
    chosen: dict[Split, list[tuple[str, str]]] = {
        "dev": searches[: QUERIES["dev"]],
        "train": searches[QUERIES["dev"] :][: QUERIES["train"]],
    }
    return {split: _table(split, own, random) for split, own in chosen.items()}


def _table(split: Split, searches: list[tuple[str, str]], random: Random) -> Table:
    rows = [(f"{word} {noun}", *document) for noun, word in searches for document in _documents(noun, word, random)]
    columns = dict(zip((QUERY, DOCUMENT, LABELS[0]), map(list, zip(*rows, strict=True)), strict=True))
    return Table(f"sample_reranking {split}", columns, range(1, len(rows) + 1), "row")


def _documents(noun: str, word: str, random: Random) -> list[tuple[str, int]]:
    """Draw different reviews with their grades, one or more of them relevant."""
    drawn: dict[str, int] = {}
    while len(drawn) < DOCUMENTS:
        degree = random.choice(("", random.choice(INTENSIFIERS)))
        adjective = random.choice((*_PRAISE, *_BLAME))
        review = Clause(random.choice((noun, noun, noun, random.choice(NOUNS))), degree, adjective)
        found = review.noun == noun and (adjective in _PRAISE) == (word in _PRAISE)
        grade = (2 if degree else 1) if found else 0
        if review.text not in drawn and (drawn or grade):  # the first is relevant
            drawn[review.text] = random.choice((0, 1, 2)) if drawn and random.random() < NOISE else grade
    return random.sample([*drawn.items()], DOCUMENTS)
