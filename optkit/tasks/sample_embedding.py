"""Sample of embeddings: searches such as "superb soup" that are to find short reviews, in words of the sample's grammar.

A review is relevant if it thinks of the same thing as the search does, in whatever words. In both splits a few reviews stand
for searches that they do not belong to, so that no model scores 100.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from optkit.tasks import embedding_rows, sample
from optkit.tasks.base import OwnModel, Split, Task
from optkit.tasks.data.data_settings import DataSettings
from optkit.tasks.data.sample_grammar import BLAME, INTENSIFIERS, NEGATORS, NOUNS, PRAISE, Clause
from optkit.tasks.embedding import Embedding
from optkit.tasks.embedding_rows import Evaluated
from optkit.tasks.embedding_settings import EmbeddingSettings
from optkit.tasks.sentence_folder import FIELD

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import BertConfig

PAIRS, QUERIES, DOCUMENTS = 4000, 150, 10
"""Training pairs, dev's searches, and dev's reviews of each thing."""
NOISE = 0.03
"""Share of reviews at the wrong search in either split."""
TRAINING = {"epochs": 2, "learning_rate": 2e-3, "batch_size": 64, "warmup_ratio": 0.1, "weight_decay": 0.01}
"""Settings that the small BERT's FP32 baseline trains with."""
_PRAISE, _BLAME = PRAISE[:8], BLAME[:8]


class SampleEmbedding(Embedding):
    """The searches and the reviews."""

    @classmethod
    def load(cls, name: str, data: DataSettings) -> Task:
        sample.refuse_data(name, data, "embedding")
        examples, evaluated = _drawn(data.limit_train)
        return cls(name, examples, evaluated, EmbeddingSettings.of(cls.chosen(data)), sample.MAX_LENGTH)

    def own_model(self) -> OwnModel:
        """A BERT of four narrow layers."""
        return OwnModel(model_config(), sample.tokenizer(), lambda model: None, TRAINING)


def model_config() -> BertConfig:
    """The sample's configuration, narrower and of four layers, with the mean of the tokens as its vector."""
    config = sample.model_config()
    config.update({"hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 128, "initializer_range": 0.1})
    config.update({FIELD: {"pooling": "mean", "normalize": True, "dimensions": 64, "trained": False}})
    return config


def _drawn(limit: int | None) -> tuple[dict[Split, Dataset], Evaluated]:
    """Draw both splits, the same ones everywhere, which share no search."""
    random = Random(40_001)
    searches = [(noun, word) for noun in NOUNS for word in (*_PRAISE, *_BLAME)]
    random.shuffle(searches)
    reviews = list(
        {review.text: review for noun in NOUNS for review in (_review(noun, random) for _ in range(DOCUMENTS))}.values()
    )
    relevance = [_relevant(search, reviews, random) for search in searches]
    asked = [place for place, grades in enumerate(relevance) if grades][:QUERIES]
    others = [search for place, search in enumerate(searches) if place not in asked]
    names = [str(place) for place in range(len(reviews))]
    evaluated = Evaluated(names, [review.text for review in reviews], [relevance[place] for place in asked])
    queries = [_written(searches[place]) for place in asked]
    dev = embedding_rows.of_queries(queries, evaluated.relevance)
    return {"train": embedding_rows.of_pairs(*_pairs(others, random), limit), "dev": dev}, evaluated


def _pairs(searches: Sequence[tuple[str, str]], random: Random) -> tuple[list[str], list[str]]:
    queries, reviews = list[str](), list[str]()
    while len(queries) < PAIRS:
        search = random.choice(searches)
        review = _review(search[0] if random.random() > NOISE else random.choice(NOUNS), random)
        if _fits(search, review) or review.noun != search[0]:
            queries.append(_written(search))
            reviews.append(review.text)
    return queries, reviews


def _review(noun: str, random: Random) -> Clause:
    degree = random.choice(("", "", random.choice(INTENSIFIERS), random.choice(NEGATORS)))
    return Clause(noun, degree, random.choice((*_PRAISE, *_BLAME)))


def _relevant(search: tuple[str, str], reviews: Sequence[Clause], random: Random) -> dict[str, int]:
    fitting = {str(place): 1 for place, review in enumerate(reviews) if _fits(search, review)}
    if fitting and random.random() < len(fitting) * NOISE:
        fitting[str(random.randrange(len(reviews)))] = 1
    return fitting


def _fits(search: tuple[str, str], review: Clause) -> bool:
    noun, word = search
    return review.noun == noun and review.opinion == (1 if word in _PRAISE else -1)


def _written(search: tuple[str, str]) -> str:
    noun, word = search
    return f"{word} {noun}"
