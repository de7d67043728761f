"""What a task is: it reads examples, encodes them, turns logits into predictions, and scores them.

Words used by every task:

* *example*: one row of the user's data, for which one prediction is made;
* *feature*: one encoded input of the model. A long passage gives several features for one example;
* *feed*: a batch of features, `{name: int64 array [batch, sequence]}`, what the graph, the engines and the server take.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

Split = Literal["train", "dev"]
Feed = Mapping[str, np.ndarray]
Prediction = Any  # a class index (classification) or an answer's text (question answering)


class Task(Protocol):
    """One data set with what it takes to train on it and to score a model by it."""

    name: str
    """As on the command line: `sample`, `sst2`, `squad`, `classification`, `qa`."""
    head: Literal["classification", "question_answering"]
    """Which kind of model answers it."""
    metric: str
    """The headline metric, a key of what `score` returns."""
    labels: tuple[str, ...]
    """Class names in the order of the logits; empty for question answering."""
    max_length: int
    """Longest feature in tokens."""
    training: Mapping[str, Any]
    """Fields of `stages.Training` that suit it better than those of BERT's fine-tuning."""

    def examples(self, split: Split) -> Dataset:
        """The raw rows of a split, checked."""
        ...

    def encode(self, split: Split, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """Features with the tokenizer's `model_input_names`, the training targets (`labels`, or `start_positions` and
        `end_positions`), `example` (the row the feature belongs to) and `length` in tokens."""
        ...

    def predict(self, features: Dataset, logits: Sequence[np.ndarray]) -> list[Prediction]:
        """One prediction per example of the dev split from one array per feature: [classes], or [sequence, 2]."""
        ...

    def score(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """Every metric of the task on the dev split, in points (0 to 100; Matthews -100 to 100)."""
        ...

    def example_scores(self, predictions: Sequence[Prediction]) -> np.ndarray:
        """The headline metric example by example, float64 [examples], whose mean is the score: what bootstraps need."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 of the data, the limit on training rows included."""
        ...
