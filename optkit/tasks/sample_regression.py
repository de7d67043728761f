"""Sample of values: how strongly short reviews praise or blame; written by the grammar."""

from __future__ import annotations

from random import Random
from statistics import fmean

from optkit.tasks import sample, small_sample
from optkit.tasks.base import OwnModel, Task
from optkit.tasks.data.data_settings import DataSettings
from optkit.tasks.data.sample_grammar import INTENSIFIERS, Clause
from optkit.tasks.regression import Regression

STRONGER = 2.0
"""Weight of an opinion with an intensifier; one without has 1."""
NOISE = 0.2
"""Standard deviation of what is added to each value."""


class SampleRegression(Regression):
    """The reviews with a value each, from -2 to 2 and a little beyond."""

    @classmethod
    def load(cls, name: str, data: DataSettings) -> Task:
        sample.refuse_data(name, data, "regression")
        return cls(name, small_sample.tables(name, _value), data.limit_train, small_sample.MAX_LENGTH)

    def own_model(self) -> OwnModel:
        """The small BERT."""
        return small_sample.own_model(self.class_names)


def _value(clauses: list[Clause], random: Random) -> float:
    """The mean of the clauses' opinions by their weights, and noise."""
    opinions = [one.opinion * (STRONGER if one.degree in INTENSIFIERS else 1.0) for one in clauses]
    return round(fmean(opinions) + random.gauss(0.0, NOISE), 3)
