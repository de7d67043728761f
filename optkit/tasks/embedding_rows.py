"""Rows of embeddings on their way to a model: read, named by role, put behind their prompts, and encoded."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optkit.core.errors import InputError
from optkit.tasks import sentence_folder
from optkit.tasks.base import Split
from optkit.tasks.collate import truncated
from optkit.tasks.data import groups
from optkit.tasks.data.data_settings import COLUMNS, HUB, DataSettings
from optkit.tasks.data.tables import GROUP, limited, problem, shown
from optkit.tasks.degenerate import Doubt, interval

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from optkit.tasks.data.text_pairs import Rows

log = logging.getLogger(__name__)
FIRST, SECOND, NEGATIVE, DOCUMENT = range(4)
"""Roles of texts: first of a pair or query, second or positive, negative, and document that queries are to find."""
_ROLES = {"first": FIRST, "second": SECOND, "query": FIRST, "positive": SECOND, "negative": NEGATIVE, "text": FIRST}
"""Roles by column; other columns are no texts."""
_PROMPTS = {"query": "query", "positive": "document", "negative": "document"}
"""Roles of prompts by column; texts of others are neither queries nor documents."""
_SHOWN, _BEGIN = 3, 60
"""Documents of a ranking that people are shown, and characters of each."""


@dataclass(frozen=True)
class Evaluated:
    """What the queries of the dev split are to find."""

    names: Sequence[str]
    documents: Sequence[str]
    """Texts of the documents."""
    relevance: Sequence[Mapping[str, int]]
    """Grades of each query's judged documents by their names."""

    def as_list(self) -> list[Any]:
        """Return all of it in JSON types."""
        return [list(self.names), list(self.documents), [dict(grades) for grades in self.relevance]]

    def shown(self, scores: Mapping[str, float]) -> str:
        """Return the first documents of a ranking with their similarities and the begin of their texts."""
        texts = dict(zip(self.names, self.documents, strict=True))
        first = list(scores.items())[:_SHOWN]
        return "; ".join(f"{name} ({score:.3f}) {texts[name][:_BEGIN]}" for name, score in first)

    def readable(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a query with the texts of its relevant documents."""
        texts = dict(zip(self.names, self.documents, strict=True))
        return {"query": row["query"], "relevant": [f"{name}: {texts[name]}" for name in row["relevant"]]}


def read(task: str, data: DataSettings) -> tuple[dict[Split, Dataset], Evaluated | None]:
    """Read both splits.

    Returns:
        Rows by split, and what dev's queries are to find; None where dev has pairs with scores.

    Raises:
        InputError: a file is wrong, or dev has neither pairs nor queries; the message names the line.
    """
    from optkit.tasks.data import beir, text_pairs

    folder = None if data.source is None or data.source.startswith(HUB) else Path(data.source)
    if folder is not None and folder.is_dir() and beir.is_collection(folder):
        data.refuse(task, *COLUMNS)
        train, collection = text_pairs.read_collection(folder)
        queries = collection.relevance["dev"]
        texts, relevance = [collection.queries[name] for name in queries], list(queries.values())
        found = Evaluated(list(collection.corpus), list(collection.corpus.values()), relevance)
        return {"train": _train(train, data.limit_train), "dev": of_queries(texts, relevance)}, found
    rows = text_pairs.read_splits(task, data)
    train, dev = _train(rows["train"], data.limit_train), rows["dev"]
    if dev.kind == "scored":
        return {"train": train, "dev": _dataset(dev.columns)}, None
    if dev.kind == "texts":
        raise problem(
            data.source,
            "texts alone in dev",
            "pairs, by which models are scored",
            "give pairs with scores, or query and positive",
        )
    texts, documents, relevance = text_pairs.judged(dev)
    found = Evaluated([str(place) for place in range(len(documents))], documents, relevance)
    own = dev.columns.get(GROUP) and groups.of_queries(dev.columns["query"], dev.columns[GROUP], f"{data.source}, dev")
    return {"train": train, "dev": of_queries(texts, relevance, own)}, found


def texts(rows: Dataset) -> list[tuple[str, ...]]:
    """Return the texts of each row."""
    columns = [rows[name][:] for name in rows.column_names if name in _ROLES]
    return list(zip(*columns, strict=True))


def encode(
    rows: Dataset, split: Split, evaluated: Evaluated | None, tokenizer: PreTrainedTokenizerBase, length: int
) -> Dataset:
    """Return a feature for each text; see `Embedding.encode`."""
    from datasets import Dataset

    prompts = sentence_folder.prompts_of(tokenizer)
    _check_prompts(prompts, tokenizer, length)
    names = [name for name in rows.column_names if name in _ROLES]
    scores = rows["score"][:] if "score" in rows.column_names else [float("nan")] * len(rows)
    numbers: dict[str, int] = {}
    written, features = [], []
    for example, (own, score) in enumerate(zip(texts(rows), scores, strict=True)):
        for name, text in zip(names, own, strict=True):
            written.append(sentence_folder.prompt(prompts, _prompt(name, example, bool(prompts))) + text)
            features.append((example, _ROLES[name], numbers.setdefault(text, len(numbers)), score))
    if split == "dev" and evaluated is not None:
        before = sentence_folder.prompt(prompts, "document")
        written += [before + text for text in evaluated.documents]
        features += [(-1, DOCUMENT, place, float("nan")) for place in range(len(evaluated.documents))]
    columns = dict(zip(("example", "role", "text", "score"), map(list, zip(*features, strict=True)), strict=True))
    dot = [int(sentence_folder.by_dot(tokenizer))] * len(written)
    return Dataset.from_dict({**truncated(tokenizer, [written], length), **columns, "dot": dot})


def doubt(points: NDArray[np.float64], evaluated: Evaluated) -> Doubt | None:
    """Return why rankings are no better than documents in random order; None where they are, or there are too few to tell.

    Args:
        points: nDCG@10 of each query.
        evaluated: what was to be found.
    """
    gains = float((1 / np.log2(np.arange(2, 12))).sum())
    chance = float(
        np.mean([min(1.0, gains * sum(g > 0 for g in one.values()) / len(evaluated.names)) for one in evaluated.relevance])
    )
    found = float(points.mean()) / 100
    low, high = interval(found, len(points))
    if low > chance:
        return None
    reason = (
        f"finds with an nDCG@10 of {100 * found:.1f} on {len(points):,} queries; any order would have {100 * chance:.1f}"
    )
    return Doubt("fail" if high < chance + 0.1 * (1 - chance) else "undecided", reason)


def _train(rows: Rows, limit: int | None) -> Dataset:
    keep = limited(len(rows), limit)
    return _dataset({name: [column[row] for row in keep] for name, column in rows.columns.items()})


def of_pairs(queries: Sequence[str], positives: Sequence[str], limit: int | None = None) -> Dataset:
    """Return queries with the text that each is to find, as rows; as many as the limit says."""
    keep = limited(len(queries), limit)
    return _dataset({"query": [queries[row] for row in keep], "positive": [positives[row] for row in keep]})


def of_queries(queries: Sequence[str], relevance: Sequence[Mapping[str, int]], own: Sequence[str] | None = None) -> Dataset:
    """Return queries as rows, with the names of their relevant documents, and their groups where they have some."""
    relevant = [[name for name, grade in grades.items() if grade > 0] for grades in relevance]
    return _dataset({"query": queries, "relevant": relevant} | ({GROUP: own} if own else {}))


def _dataset(columns: Mapping[str, Sequence[Any]]) -> Dataset:
    from datasets import Dataset

    return Dataset.from_dict({name: list(column) for name, column in columns.items()})


def _prompt(column: str, example: int, has_prompts: bool) -> str:
    """Return the role of a text's prompt; texts alone are queries and documents in turn, as a model is asked both."""
    if column == "text" and has_prompts:
        return ("query", "document")[example % 2]
    return _PROMPTS.get(column, "")


def _check_prompts(prompts: Mapping[str, str], tokenizer: PreTrainedTokenizerBase, length: int) -> None:
    for name, text in prompts.items():
        if (tokens := len(tokenizer(text)["input_ids"])) >= length:
            raise InputError(
                f"the prompt {name!r} ({shown(text)}) has {tokens} tokens, of {length} that a text may have; expected room "
                "for the text behind it. Shorten the prompt, or raise --max-length"
            )
