"""Reranking: how relevant a document is to a query, which sorts the documents that a search has found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from optkit.tasks import rankings
from optkit.tasks.base import LONGEST, SPLITS, Prediction, Split, Task
from optkit.tasks.belonging import Drawn
from optkit.tasks.choices import Choices
from optkit.tasks.collate import by_example
from optkit.tasks.data import groups, judged
from optkit.tasks.data.columns import TEXTS
from optkit.tasks.data.data_settings import COLUMNS, DataSettings
from optkit.tasks.data.judged import DOCUMENT, QUERY, Judged
from optkit.tasks.data.tables import GROUP, Table, numbered
from optkit.tasks.degenerate import Doubt, of_rankings
from optkit.tasks.served import ServedForm, Tensors, TextSettings
from optkit.tasks.texts import TARGET, TextTask, text_columns

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

_AGREE = 0.1
"""How far two served logits may be apart, over the expected ones' mean absolute deviation, or over 1 if that is less."""
_SATURATED = 1e-4
"""Scores nearer to 0 or 1 than this are as good as equal to it."""
FIRST = 10
"""Places of a ranking that matter."""


class Relevance(NamedTuple):
    """The served answer to a query and a document."""

    score: float
    """Relevance from 0 to 1."""
    rank: int
    """Place among the documents of the same query in the request, from 1."""

    def __str__(self) -> str:
        return f"{self.score:.4g}"

    def shown(self) -> str:
        """The score alone."""
        return str(self)


class Place(NamedTuple):
    """A predicted relevance, and the document's place among those of its query that it gives."""

    logit: float
    place: int
    of: int


class ServedRelevance(ServedForm):
    """A batch of queries with a document each, and the relevance of each."""

    beside = (QUERY,)

    def logits_shape(self, settings: TextSettings) -> tuple[int, ...]:
        return (1,)

    def outputs(self, settings: TextSettings) -> Tensors:
        return {"score": ("FP32", (1,)), "rank": ("INT32", (1,))}

    def answer(self, logits: np.ndarray, beside: Mapping[str, np.ndarray], settings: TextSettings) -> dict[str, np.ndarray]:
        """The sigmoid of each logit, and its place among those of the same query in the batch, the best being 1."""
        queries = np.array(numbered(beside[QUERY].reshape(-1).tolist()))
        return {"score": _sigmoid(logits).astype(np.float32), "rank": _places(logits[:, 0], queries)[:, None]}

    def decode(self, outputs: Mapping[str, np.ndarray], labels: Sequence[str]) -> list[Relevance]:
        pairs = zip(outputs["score"], outputs["rank"], strict=True)
        return [Relevance(float(score[0]), int(rank[0])) for score, rank in pairs]

    def shown(self, texts: Sequence[Sequence[str]], answers: Sequence[Any]) -> str:
        """The documents by their scores, the best first."""
        ordered = sorted(zip(answers, texts, strict=True), key=lambda pair: pair[0].rank)
        return "\n".join(f"{answer.rank}. {answer.score:.4f}  {document}" for answer, (_, document) in ordered)

    def differing(self, found: Sequence[str], expected: Sequence[str]) -> list[int]:
        """Places where logits are further apart than other sums of the same numbers make them."""
        shares = (np.clip(np.array(side, dtype=float), _SATURATED, 1 - _SATURATED) for side in (found, expected))
        ours, theirs = (np.log(share / (1 - share)) for share in shares)
        return np.flatnonzero(np.abs(ours - theirs) > _AGREE * max(1.0, np.abs(theirs - theirs.mean()).mean())).tolist()


class Reranking(TextTask):
    """A data set of queries with documents, each of which has a grade of relevance."""

    head = "reranking"
    axes = ("batch", "score")
    choice = None
    targets = ("labels", "queries")
    grouped_by = "queries"
    learns_from_texts = False  # but from the margins between documents of a query
    served = ServedRelevance()
    metric = "ndcg@10"
    metrics = ("ndcg@10", "mrr@10", "map", "recall@10")
    scored_units = "queries"
    class_names = ("score",)
    library_classes: ClassVar[Mapping[str, str]] = {**TextTask.library_classes, "sentence-transformers": "CrossEncoder"}
    options: ClassVar[Mapping[str, tuple[str, ...]]] = {"unanswered": ("refused", "left_out")}
    usual_columns = (
        (QUERY, DOCUMENT),
        (QUERY, "passage"),
        (QUERY, "text"),
        ("question", "answer"),
        ("question", "sentence"),
        TEXTS,
    )

    def __init__(
        self,
        name: str,
        tables: Mapping[Split, Table],
        limit_train: int | None = None,
        max_length: int = LONGEST,
        known: Judged | None = None,
    ) -> None:
        """Check both tables.

        Args:
            name: of the task, as on the command line.
            tables: with columns of the query and the document (`usual_columns`), and `label` or `score`: a whole number
                from 0, which is not relevant.
            limit_train: how many training rows to keep; all by default.
            max_length: longest feature in tokens; longer texts are cut.
            known: what is known of the dev split's rows; without, equal texts are the same query.

        Raises:
            InputError: a column, a text or a grade is missing or wrong, or a query of the dev split has no relevant
                document; the message names the row.
        """
        from datasets import Value as Type

        grades = {split: judged.grades(table) for split, table in tables.items()}
        judged.check_learnable(tables["train"], grades["train"])
        super().__init__(name, tables, lambda split: grades[split], Type("int64"), limit_train, max_length)
        for split, table in tables.items():
            judged.warn_of_doubts(table, self.text_columns, grades[split])
        if known is None:
            judged.check_scored(tables["dev"], self.text_columns, grades["dev"])
            known = self._judged("dev")
        self._known, self._best = known, max(grades["train"])

    @classmethod
    def load(cls, name: str, data: DataSettings) -> Task:
        from optkit.tasks.data import beir, candidates

        leave_out = cls.chosen(data)["unanswered"] == "left_out"
        if data.source is not None and beir.is_collection(folder := Path(data.source)):
            data.refuse(name, *COLUMNS)
            tables, known = candidates.read(folder, leave_out)
            return cls(name, tables, data.limit_train, known=known)
        tables = cls.read(name, data)
        if leave_out:
            query = text_columns(tables["dev"], cls.usual_columns)[0]
            tables["dev"] = judged.only_answered(tables["dev"], query)
        return cls(name, tables, data.limit_train)

    def fingerprint(self, splits: Sequence[Split] = SPLITS) -> str:
        """Return the SHA-256 of the rows, of what is known beyond them, and of the grade that counts as 1."""
        known = [*self._known.queries, *self._known.documents, *(sorted(own.items()) for own in self._known.relevance)]
        return hashlib.sha256(json.dumps([super().fingerprint(splits), known, self._best]).encode()).hexdigest()

    @classmethod
    def has_head(cls, config: Any) -> bool:
        return bool(config.num_labels == 1)

    def learned(self, split: Split) -> dict[str, list[Any]]:
        """Return each row's share of the best grade, and the number of its query."""
        rows = self.examples(split)
        shares = [min(1.0, grade / self._best) for grade in rows[TARGET][:]]
        return {"labels": shares, "queries": numbered(rows[self.text_columns[0]][:])}

    @staticmethod
    def loss(output: Any, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Binary cross-entropy of the grades, as shares of the best one (Nogueira and Cho 2019, arXiv 1901.04085)."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(output["logits"].float().squeeze(-1), targets["labels"].float())

    @classmethod
    def teaching_loss(
        cls, student: torch.Tensor, teacher: torch.Tensor, targets: Mapping[str, torch.Tensor]
    ) -> torch.Tensor | None:
        """Margin-MSE: squared distance of the margins between documents of a query from the teacher's margins.

        All pairs of a query's documents in the batch count, whatever their grades; 0 where there are none (Hofstätter et al.
        2020, arXiv 2010.02666, who have one relevant document in each pair).
        """
        apart = (student.float() - teacher.float()).squeeze(-1)
        queries = targets["queries"]
        pairs = (queries[:, None] == queries[None]).triu(diagonal=1)
        return ((apart[:, None] - apart[None]) ** 2 * pairs).sum() / pairs.sum().clamp(min=1)

    def predict(self, features: Dataset, logits: Sequence[np.ndarray]) -> list[Prediction]:
        """The relevance of each document, and its place among those of its query.

        Args:
            features: of the dev split, in any order.
            logits: [1] for each feature.

        Raises:
            GateError: a logit is not finite.
        """
        values = by_example(features, logits).astype(float).ravel()
        queries = np.array(self._known.queries)
        places, counts = _places(values, queries), np.bincount(queries)[queries]
        return [Place(*one) for one in zip(values.tolist(), places.tolist(), counts.tolist(), strict=True)]

    def choices(self, features: Dataset, logits: Sequence[np.ndarray]) -> Iterator[Choices]:
        """Whether the document is relevant, which is as right as its grade is high."""
        for share, row in zip(features["labels"][:], logits, strict=True):
            yield Choices(np.array([[row[0], 0.0]]), np.array([[share, 1 - share]]))

    def score(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """The means of the metrics over queries."""
        outcomes = self.outcomes(predictions)
        return {name: float(outcomes[name].mean()) for name in self.metrics}

    def outcomes(self, predictions: Sequence[Prediction]) -> np.ndarray:
        """Return the metrics of each query, [queries]."""
        return rankings.per_query(self._known.relevance, self._scores(predictions), self.metrics)

    def drawn(self) -> Drawn:
        """Documents of a query are drawn with it; queries with others of their group."""
        queries, rows = np.array(self._known.queries), self.examples("dev")
        if GROUP not in rows.column_names:
            return Drawn(queries, None)
        own = groups.of_queries(rows[self.text_columns[0]][:], rows[GROUP][:], f"{self.name}, dev")
        return Drawn(np.array(numbered(own))[queries], np.array(numbered(own)))

    def decision(self, prediction: Prediction) -> Any:
        """The document's place; all beyond the first ones are alike."""
        return min(prediction.place, FIRST + 1)

    @property
    def metric_in_words(self) -> str:
        return f"{self.metric}, the mean over {len(self._known.relevance):,} queries"

    def weakness(self, features: Dataset, logits: Sequence[np.ndarray]) -> str | None:
        """Return why a teacher is bad: it ranks the training examples no better than chance."""
        known = self._judged("train")
        answered = [query for query, grades in enumerate(known.relevance) if any(grades.values())]
        scores = known.scores(np.concatenate(list(logits)).tolist())
        relevance, scores = [known.relevance[query] for query in answered], [scores[query] for query in answered]
        found = float(rankings.per_query(relevance, scores, [self.metric])[self.metric].mean())
        chance = rankings.by_chance(relevance, scores, self.metric)
        if found >= chance:
            return None
        return f"has {self.metric} {found:.1f} on the training examples; random order would have {chance:.1f}"

    def degenerate(self, predictions: Sequence[Prediction]) -> Doubt | None:
        """Return why scores are all the same, or order documents no better than chance."""
        return of_rankings(self._known.relevance, self._scores(predictions), self.metric)

    def shown(self, prediction: Prediction) -> str:
        """The relevance from 0 to 1 to four digits."""
        return str(Relevance(float(_sigmoid(prediction.logit)), prediction.place))

    def told(self, prediction: Prediction) -> str:
        """The relevance with the place that it gives."""
        return f"{self.shown(prediction)} (place {prediction.place} of {prediction.of})"

    @property
    def text_fields(self) -> tuple[str, ...]:
        return QUERY, DOCUMENT

    def _judged(self, split: Split) -> Judged:
        rows = self.examples(split)
        return judged.of_rows(*(rows[name][:] for name in (*self.text_columns, TARGET)))

    def _scores(self, predictions: Sequence[Prediction]) -> list[dict[str, float]]:
        self.check_count(predictions)
        return self._known.scores([one.logit for one in predictions])


def _sigmoid(logits: Any) -> Any:
    """The logistic function, without overflow."""
    return np.exp(-np.logaddexp(0, -np.asarray(logits, np.float64)))


def _places(logits: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The place of each document among those of its query, int32 [documents]; of equal ones the first goes before."""
    order = np.lexsort((-logits, queries))
    starts = np.flatnonzero(np.diff(queries[order], prepend=-1))
    places = np.empty(len(order), np.int32)
    places[order] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order))) + 1
    return places
