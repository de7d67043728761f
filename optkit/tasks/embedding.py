"""Embedding: a vector of each text, such that texts of like meaning lie near; scored on pairs with scores or retrieval."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from optkit.core.json_door import read_json
from optkit.tasks import embedding_rows, rankings, sentence_folder
from optkit.tasks.base import LONGEST, SPLITS, Prediction, Split, Task
from optkit.tasks.collate import check_logits
from optkit.tasks.correlation import CORRELATIONS
from optkit.tasks.data.data_settings import DataSettings
from optkit.tasks.degenerate import Doubt, of_values
from optkit.tasks.embedding_rows import DOCUMENT, FIRST, SECOND, Evaluated
from optkit.tasks.embedding_settings import OPTIONS, EmbeddingSettings
from optkit.tasks.outcomes import VALUES
from optkit.tasks.outcomes import value as metric_of
from optkit.tasks.sentence_folder import FIELD
from optkit.tasks.served import TextSettings
from optkit.tasks.vectors import ServedVectors, Vector, as_served, cosines, similarities, spaced

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)
DEPTH = 100
"""Documents of a ranking that are kept."""
TOP = 10
"""Documents of a ranking that are compared with the FP32 baseline's."""
RETRIEVAL = ("ndcg@10", "recall@1", "recall@10", "recall@100", "mrr@10")
"""Metrics of retrieval, the headline one first."""
_BLOCK = 512  # queries whose similarities are computed at once


class Similarity(NamedTuple):
    """The prediction for a pair: how alike its texts are."""

    value: float
    vectors: NDArray[np.float32]
    """Vectors of both texts, [2, dimensions]."""


class Ranking(NamedTuple):
    """The prediction for a query: the documents nearest to it."""

    scores: Mapping[str, float]
    """Similarities by document, the best first, `DEPTH` at most."""
    vector: NDArray[np.float32]
    documents: NDArray[np.float32]
    """Vectors of all documents, [documents, dimensions]; the same array for every query."""


class Embedding(Task):
    """Texts to be told apart by their vectors: pairs with scores, or queries among documents."""

    head = "embedding"
    axes = ("batch", "dimension")
    choice = None
    readable_logits = False
    library_classes: ClassVar[Mapping[str, str]] = {"sentence-transformers": "SentenceTransformer"}
    targets = ("example", "role", "text", "score")
    head_modules = ()
    served = ServedVectors()
    grouped_by = "example"
    options = OPTIONS
    training: ClassVar[Mapping[str, Any]] = {"epochs": 1, "batch_size": 64, "learning_rate": 5e-5}
    text_columns = ("text",)

    def __init__(
        self,
        name: str,
        examples: Mapping[Split, Dataset],
        evaluated: Evaluated | None = None,
        settings: EmbeddingSettings | None = None,
        max_length: int = LONGEST,
    ) -> None:
        """Create a task from checked rows (see `embedding_rows.read`).

        Args:
            name: of the task, as on the command line.
            examples: rows by split, those of dev pairs with a score or queries.
            evaluated: the documents that dev's queries are to find, and their relevance; None for pairs.
            settings: what was said of vectors and prompts.
            max_length: longest text in tokens; longer ones are cut.
        """
        super().__init__(name, examples, max_length)
        self.evaluated, self.settings = evaluated, settings or EmbeddingSettings()
        self.scored_units = "pairs" if evaluated is None else "queries"
        self.metrics = tuple(CORRELATIONS) if evaluated is None else RETRIEVAL
        self.metric = self.metrics[0]
        self.labelled = "text" not in examples["train"].column_names

    @classmethod
    def load(cls, name: str, data: DataSettings) -> Task:
        examples, evaluated = embedding_rows.read(name, data)
        return cls(name, examples, evaluated, EmbeddingSettings.of(cls.chosen(data)))

    def fingerprint(self, splits: Sequence[Split] = SPLITS) -> str:
        """Return the SHA-256 of the rows used, of the documents, and of what was said of vectors."""
        more = [self.settings.as_list(), self.evaluated and self.evaluated.as_list()]
        return sha256(json.dumps([super().fingerprint(splits), more], sort_keys=True).encode()).hexdigest()

    def adopt(self, folder: Path, config: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        """Take pooling, normalisation, prompts and length from a folder of sentence-transformers, or from what was said."""
        self.settings.adopt(folder, config, tokenizer)

    @staticmethod
    def auto_class() -> Any:
        from optkit.tasks.embedder import AutoModelForEmbedding

        return AutoModelForEmbedding

    @classmethod
    def has_head(cls, config: Any) -> bool:
        return bool((getattr(config, FIELD, None) or {}).get("trained"))

    @classmethod
    def dimensions(cls, config: Any) -> int:
        return int(getattr(config, FIELD)["dimensions"])

    def shape_of_logits(self, checkpoint: Path) -> tuple[int, ...]:
        return (int(read_json(checkpoint / "config.json")[FIELD]["dimensions"]),)

    def library_files(self, checkpoint: Path, tokenizer: PreTrainedTokenizerBase) -> Mapping[str, Any]:
        (dimensions,) = self.shape_of_logits(checkpoint)
        return sentence_folder.files(dimensions, tokenizer)

    def encode(self, split: Split, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """One feature per text, those of a row one after the other; of dev's documents after those of its queries.

        Columns: the tokenizer's `model_input_names`, `example` (-1 for a document), `role`, `text` (a number for each
        different text, of a document its place), `score`, `dot`, `length`, `whole_length`.

        Raises:
            InputError: a prompt leaves no room for its text.
        """
        return embedding_rows.encode(self.examples(split), split, self.evaluated, tokenizer, self.length(tokenizer))

    @staticmethod
    def logits(output: Any) -> torch.Tensor:
        """The vectors, [batch, dimensions]."""
        vectors: torch.Tensor = output[FIELD]
        return vectors

    @staticmethod
    def loss(output: Any, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss of pairs with a score, or of queries that are to find their own text among the others."""
        from optkit.tasks.vector_losses import ranking_loss, score_loss

        scored = not targets["score"].isnan().any()
        loss, last = (score_loss, "score") if scored else (ranking_loss, "text")
        return loss(output[FIELD], targets["example"], targets["role"], targets[last])

    @classmethod
    def teaching_loss(
        cls, student: torch.Tensor, teacher: torch.Tensor, targets: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        from optkit.tasks.vector_losses import teacher_loss

        return teacher_loss(student, teacher)

    @classmethod
    def mean_of_teachers(cls, answers: torch.Tensor) -> torch.Tensor:
        """Return the mean of the teachers' vectors, each of length 1: only directions are followed, and a longer vector
        would have more of a say."""
        return (answers / answers.norm(dim=-1, keepdim=True).clamp(min=1e-12)).mean(0)

    def predict(self, features: Dataset, logits: Sequence[NDArray[Any]]) -> list[Prediction]:
        """How alike the texts of each pair are, or the documents that each query finds.

        Args:
            features: of the dev split, in any order.
            logits: [dimensions] for each feature.

        Raises:
            GateError: a number is not finite.
        """
        check_logits(features, logits)
        vectors = as_served(np.stack(list(logits)).astype(np.float32), self.settings.vectors)
        roles, by_dot = np.array(features["role"][:]), bool(features["dot"][0])
        first = vectors[roles == FIRST][np.argsort(np.array(features["example"][:])[roles == FIRST])]
        if self.evaluated is None:
            second = vectors[roles == SECOND][np.argsort(np.array(features["example"][:])[roles == SECOND])]
            values = (first.astype(np.float64) * second).sum(-1) if by_dot else cosines(first, second)
            return [Similarity(float(value), np.stack(pair)) for value, *pair in zip(values, first, second, strict=True)]
        documents = vectors[roles == DOCUMENT][np.argsort(np.array(features["text"][:])[roles == DOCUMENT])]
        return [
            Ranking(scores, vector, documents)
            for vector, scores in zip(first, self._nearest(first, documents, by_dot), strict=True)
        ]

    def score(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """Spearman's and Pearson's correlation, or nDCG, recall and mean reciprocal rank, in points."""
        outcomes = self.outcomes(predictions)
        return {name: metric_of(outcomes, name) for name in self.metrics}

    def outcomes(self, predictions: Sequence[Prediction]) -> NDArray[Any]:
        """Return the right and the predicted similarity of each pair, or the metrics of each query."""
        self.check_count(predictions)
        if self.evaluated is not None:
            return rankings.per_query(self.evaluated.relevance, [one.scores for one in predictions], RETRIEVAL)
        found = np.empty(len(predictions), VALUES)
        found["gold"], found["predicted"] = self.examples("dev")["score"][:], [one.value for one in predictions]
        return found

    def decision(self, prediction: Prediction) -> Any:
        """The first document of a ranking; None for similarities, which move and never flip."""
        return None if self.evaluated is None else next(iter(prediction.scores))

    def degenerate(self, predictions: Sequence[Prediction]) -> Doubt | None:
        """Return why similarities are no better than one value or any order, or rankings than documents in random order."""
        if self.evaluated is None:
            outcomes = self.outcomes(predictions)
            return of_values(outcomes["gold"], outcomes["predicted"])
        return embedding_rows.doubt(self.outcomes(predictions)[RETRIEVAL[0]], self.evaluated)

    def kept(self, predictions: Sequence[Prediction]) -> Mapping[str, NDArray[Any]]:
        """Return vectors [texts, dimensions], and of each query its nearest documents [queries, `TOP`]."""
        if self.evaluated is None:
            return {"vectors": spaced(np.concatenate([one.vectors for one in predictions]))}
        vectors = np.concatenate([np.stack([one.vector for one in predictions]), predictions[0].documents])
        width = min(TOP, len(self.evaluated.names))
        return {"vectors": spaced(vectors), "top": np.array([list(one.scores)[:width] for one in predictions])}

    def beside(self, own: Mapping[str, NDArray[Any]], baseline: Mapping[str, NDArray[Any]]) -> dict[str, float]:
        """Return the mean and the worst cosine with the FP32 baseline's vectors, and the share of queries whose first and
        first ten documents are others, in points; cosines only of vectors of one size."""
        found = {}
        if "vectors" in own and own["vectors"].shape == baseline["vectors"].shape:
            alike = 100 * cosines(own["vectors"], baseline["vectors"])
            found = {"cosine_mean": float(alike.mean()), "cosine_worst": float(alike.min())}
        if "top" in own:
            ours, theirs = own["top"], baseline["top"]
            others = [set(one) != set(other) for one, other in zip(ours.tolist(), theirs.tolist(), strict=True)]
            found["top1_changed"] = 100 * float((ours[:, 0] != theirs[:, 0]).mean())
            found["top10_changed"] = 100 * float(np.mean(others))
        return found

    def shown(self, prediction: Prediction) -> str:
        """The similarity, or the first documents with theirs."""
        if self.evaluated is None:
            return f"{prediction.value:.4f}"
        return self.evaluated.shown(prediction.scores)

    def texts(self, split: Split) -> list[tuple[str, ...]]:
        return embedding_rows.texts(self.examples(split))

    def requests(self, most: int) -> list[tuple[str, ...]]:
        """Texts of the dev split with the names of their prompts."""
        role = "" if self.evaluated is None else "query"
        return [(one[0], role) for one in self.texts("dev")[:most]]

    def shown_as(self, prediction: Prediction, labels: Sequence[str]) -> str:
        """Return the vector of a row's first text as it is served."""
        vector = prediction.vectors[0] if self.evaluated is None else prediction.vector
        return str(self._as_answer(vector))

    def readable(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row, of a query with the texts of its relevant documents."""
        return dict(row) if self.evaluated is None else self.evaluated.readable(row)

    def text_settings(self, tokenizer: PreTrainedTokenizerBase) -> TextSettings:
        """Return the settings with the kind of vectors; where the model has prompts, a request names one of them."""
        settings, prompts = super().text_settings(tokenizer), sentence_folder.prompts_of(tokenizer)
        more: dict[str, Any] = {"vectors": self.settings.vectors}
        if prompts:
            named = {role: sentence_folder.prompt(prompts, role) for role in ("query", "document")}
            settings, more = replace(settings, fields=("text", "prompt")), more | {"prompts": {**prompts, **named}}
        return replace(settings, more=more)

    def _nearest(self, queries: Any, documents: Any, by_dot: bool) -> list[dict[str, float]]:
        """Return the similarities of the nearest documents of each query by name, the best first."""
        assert self.evaluated is not None
        names, found = np.array(self.evaluated.names), []
        for start in range(0, len(queries), _BLOCK):
            for row in similarities(queries[start : start + _BLOCK], documents, by_dot):
                nearest = np.argpartition(-row, min(DEPTH, len(row)) - 1)[:DEPTH]
                scores = dict(zip(names[nearest].tolist(), row[nearest].tolist(), strict=True))
                found.append({name: scores[name] for name in rankings.ranked(scores)})
        return found

    def _as_answer(self, vector: NDArray[np.float32]) -> Vector:
        """Return a vector as the server answers it."""
        settings = TextSettings(self.head, (), {}, 0, logits=vector.shape, more={"vectors": self.settings.vectors})
        return self.served.decode(self.served.answer(vector[None], {}, settings), ())[0]
