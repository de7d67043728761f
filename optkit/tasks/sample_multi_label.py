"""Sample of several labels: what short reviews are about, and whether they praise and blame; written by the grammar."""

from __future__ import annotations

from random import Random

from optkit.tasks import sample, small_sample
from optkit.tasks.base import OwnModel, Task
from optkit.tasks.data.data_settings import DataSettings
from optkit.tasks.data.sample_grammar import Clause
from optkit.tasks.multi_label import MultiLabel

TOPICS: dict[str, tuple[str, ...]] = {
    "food": ("soup", "wine", "bread", "coffee", "dessert", "breakfast", "tea", "cake", "salad", "steak", "menu"),
    "film": ("film", "plot", "acting", "ending", "cast", "script"),
    "hotel": ("room", "service", "staff", "view", "hotel", "pool", "lobby", "bed", "shower"),
    "music": ("music", "sound", "song", "band", "stage", "show"),
    "book": ("book", "story", "style", "cover", "chapter"),
}
"""Label to the nouns that tell of it; places have no label of their own."""
NOISE = 0.03
"""Share of rows that lack a label."""


class SampleMultiLabel(MultiLabel):
    """The reviews, sorted into any of seven labels."""

    @classmethod
    def load(cls, name: str, data: DataSettings) -> Task:
        sample.refuse_data(name, data, "multi_label")
        return cls(name, small_sample.tables(name, _labels), data.limit_train, small_sample.MAX_LENGTH)

    def own_model(self) -> OwnModel:
        """The small BERT."""
        return small_sample.own_model(self.labels, **self.config)


def _labels(clauses: list[Clause], random: Random) -> list[str]:
    """The labels of a review, once in a while with one missing."""
    found = [label for label, nouns in TOPICS.items() if any(clause.noun in nouns for clause in clauses)]
    found += [label for label, sign in (("praise", 1), ("blame", -1)) if any(one.opinion == sign for one in clauses)]
    if found and random.random() < NOISE:
        found.remove(random.choice(found))
    return found
