"""Reads what embeddings are learned from and scored on: pairs with scores, queries and what answers them, or texts alone."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from optkit.core.errors import InputError
from optkit.tasks.base import Split
from optkit.tasks.data import beir, groups, reading, source
from optkit.tasks.data.beir import Collection
from optkit.tasks.data.columns import LABEL, mapped
from optkit.tasks.data.data_settings import HUB, DataSettings
from optkit.tasks.data.numbers import values_of
from optkit.tasks.data.tables import GROUP, Table, check_text, listed, problem, required, shown
from optkit.tasks.texts import TEXT_COLUMNS, text_columns

log = logging.getLogger(__name__)
Kind = Literal["scored", "pairs", "texts"]
SCORES = (LABEL, "score", "similarity_score", "similarity")
"""What the column with the score of a pair may be called."""
_QUERIES, POSITIVE, NEGATIVE = ("query", "anchor"), "positive", "negative"
_RANGES = ((-1.0, 1.0), (0.0, 5.0))
"""Ranges of scores: of cosines, and of the STS benchmarks."""
_EXPECTED = "sentence1, sentence2 and score; query and positive, and perhaps negative; or, to learn from a teacher, text"


@dataclass(frozen=True)
class Rows:
    """Rows of one kind."""

    kind: Kind
    columns: Mapping[str, Sequence[Any]]
    """`first`, `second`, `score` from -1 to 1; or `query`, `positive` and perhaps `negative`; or `text`; perhaps `group`."""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def read_splits(task: str, data: DataSettings) -> dict[Split, Rows]:
    """Read both splits of a folder or of the hub; each may be of its own kind, and `train` a plain text file.

    Args:
        task: name of the task, for messages.
        data: where they are, and what their columns are called.

    Raises:
        InputError: a file is wrong; the message names the line.
        MachineError: the hub cannot be reached.
    """
    return {split: rows_of(mapped(table, data, TEXT_COLUMNS)) for split, table in _tables(task, data).items()}


def _tables(task: str, data: DataSettings) -> dict[Split, Table]:
    found = required(task, data.source)
    folder = Path(found)
    if found.startswith(HUB) or not folder.is_dir() or source.read_datasets(found) is not None:
        return source.read_tables(task, found)
    found_paths = reading.find(folder, more=reading.PLAIN)
    return {split: reading.read(paths, reading.PLAIN) for split, paths in found_paths.items()}


def read_collection(folder: Path) -> tuple[Rows, Collection]:
    """Read a collection of BEIR's layout, and what is trained on: its judgements of `train`, or a `train` file beside it.

    Raises:
        InputError: a file is missing or wrong.
    """
    if not reading.find(folder / beir.QRELS, ("train",), required=False):
        train = reading.read(reading.named(folder, "train", reading.PLAIN), reading.PLAIN)
        return rows_of(groups.grouped(train, None)), beir.read(folder, ("dev",))
    found = beir.read(folder)
    judgements = found.relevance["train"].items()
    pairs = [(query, document) for query, grades in judgements for document, grade in grades.items() if grade > 0]
    queries, positives = [found.queries[query] for query, _ in pairs], [found.corpus[document] for _, document in pairs]
    if not pairs:
        raise problem(folder / beir.QRELS, "no relevant document in train", "one or more", "judge some, or give train.txt")
    return Rows("pairs", {"query": queries, POSITIVE: positives}), found


def rows_of(table: Table) -> Rows:
    """Return the rows of a table, after checking each.

    Raises:
        InputError: the columns are of no known kind, or a row is wrong; the message names the line.
    """
    query = next((name for name in _QUERIES if name in table.columns), None)
    if query is not None and POSITIVE in table.columns:
        names = {"query": query, POSITIVE: POSITIVE} | ({NEGATIVE: NEGATIVE} if NEGATIVE in table.columns else {})
        if others := [name for name in table.columns if name not in (*names.values(), GROUP)]:
            log.warning("%s: each positive answers its query; %s is not read", table.source, listed(others))
        return Rows("pairs", _texts(table, names))
    try:
        columns = text_columns(table)
    except InputError as error:
        raise problem(table.source, f"no pairs and no texts ({table.named})", _EXPECTED, "rename the columns") from error
    scores = [name for name in SCORES if name in table.columns]
    if len(columns) == 2:
        if len(scores) != 1:
            found = f"{'several scores' if scores else 'pairs without a score'} ({table.named})"
            raise problem(table.source, found, _EXPECTED, "name the column of the score: --label-column NAME")
        texts = _texts(table, dict(zip(("first", "second"), columns, strict=True)))
        return Rows("scored", {**texts, "score": _scores(table, scores[0])})
    if others := [name for name in table.columns if name not in (*columns, GROUP)]:
        log.info("%s: texts alone; %s is not read", table.source, listed(others))
    return Rows("texts", _texts(table, {"text": columns[0]}))


def judged(rows: Rows) -> tuple[list[str], list[str], list[dict[str, int]]]:
    """Return queries, documents and relevance of rows of pairs: each query is to find its own among all documents.

    Returns:
        Queries, each once; documents, each once; the judged documents of each query by their place among the documents.
    """
    negatives = rows.columns.get(NEGATIVE, [])
    places = {text: place for place, text in enumerate(dict.fromkeys([*rows.columns[POSITIVE], *negatives]))}
    relevance: dict[str, dict[str, int]] = {}
    for query, positive in zip(rows.columns["query"], rows.columns[POSITIVE], strict=True):
        relevance.setdefault(query, {})[str(places[positive])] = 1
    return list(relevance), list(places), list(relevance.values())


def _texts(table: Table, names: Mapping[str, str]) -> dict[str, Sequence[str]]:
    """Return checked columns of texts under other names, {new: old}, and the groups of the rows where they have some."""
    for column in names.values():
        for row, value in enumerate(table.columns[column]):
            check_text(table.at(row), column, value)
    return {new: table.columns[old] for new, old in names.items()} | groups.kept(table, range(len(table)))


def _scores(table: Table, column: str) -> list[float]:
    """Return scores as the cosines that are to be learned, from -1 to 1; those of STS, from 0 to 5, are divided by 5.

    Raises:
        InputError: a score is missing, not finite, or beyond both ranges.
    """
    values = values_of(replace(table, columns={LABEL: table.columns[column]}, classes={}))
    low, high = next((span for span in _RANGES if max(values) <= span[1]), _RANGES[-1])
    for row, value in enumerate(values):
        if not low <= value <= high:
            ranges = " or ".join(f"{first:g} to {last:g}" for first, last in _RANGES)
            raise problem(table.at(row), f"the score {shown(value)}", f"scores from {ranges}", "scale all scores alike")
    return [value / max(high, 1.0) for value in values]
