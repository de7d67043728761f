"""Sample of questions: which word of a short review praises, blames, or does neither; some have no answer."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from optkit.tasks import sample, small_sample
from optkit.tasks.base import OwnModel, Split, Task
from optkit.tasks.data.data_settings import DataSettings
from optkit.tasks.data.sample_grammar import BLAME, INTENSIFIERS, NEITHER, NOUNS, PRAISE, Clause
from optkit.tasks.question_answering import QuestionAnswering

if TYPE_CHECKING:
    from datasets import Dataset

ASKED: dict[str, tuple[str, ...]] = {"praise": PRAISE, "blame": BLAME, "neither": NEITHER}
"""Word of a question to the adjectives that answer it."""
NOISE = 0.03
"""Share of questions that lack their answer."""
WORDS = ("any", "?", *ASKED)
"""Words that the sample's own tokenizer lacks."""


class SampleQA(QuestionAnswering):
    """Reviews of two or three things, at most one of whose adjectives is what the question asks for."""

    @classmethod
    def load(cls, name: str, data: DataSettings) -> Task:
        sample.refuse_data(name, data, "qa")
        return cls(name, {split: _rows(split) for split in small_sample.SIZES}, data.limit_train, small_sample.MAX_LENGTH)

    def own_model(self) -> OwnModel:
        """The small BERT."""
        return small_sample.own_model(self.class_names, sample.tokenizer(WORDS))


def _rows(split: Split) -> Dataset:
    """The questions of a split, the same ones everywhere."""
    from datasets import Dataset

    from optkit.tasks.data.squad import FEATURES

    random, found = Random(f"questions, {split}"), dict[tuple[str, str], dict[str, Any]]()
    while len(found) < small_sample.SIZES[split]:
        row = _question(random, f"{split}-{len(found)}")
        found.setdefault((row["question"], row["context"]), row)
    return Dataset.from_list(list(found.values()), features=FEATURES)


def _question(random: Random, name: str) -> dict[str, Any]:
    kinds = random.sample(list(ASKED), random.choice((2, 2, 2, 3)))
    said = {kind: random.choice(ASKED[kind]) for kind in kinds}
    clauses = [Clause(random.choice(NOUNS), random.choice(("", *INTENSIFIERS)), adjective) for adjective in said.values()]
    context = " ".join(map(sample.written, clauses))
    asked = random.choice(list(ASKED))
    answers = [said[asked]] if asked in said and random.random() >= NOISE else []
    return {
        "id": name,
        "question": f"Any {asked}?",
        "context": context,
        "answers": {"text": answers, "answer_start": [context.index(f" {adjective}.") + 1 for adjective in answers]},
    }
