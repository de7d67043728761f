"""Reads BEIR's layout (Thakur et al. 2021, arXiv 2104.08663): a corpus, queries, and which documents are relevant to which.

    corpus.jsonl        `_id`, `text`, and a `title` that goes before the text
    queries.jsonl       `_id`, `text`
    qrels/dev.tsv       `query-id`, `corpus-id`, `score`: 0 for a document that is not relevant
    candidates/dev.tsv  `query-id`, `corpus-id`: what is to be ranked; or MTEB's `top_ranked/dev.jsonl` with `corpus-ids`

Every file may also be of another kind that tables are read from.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from optkit.tasks.base import SPLITS, Split
from optkit.tasks.data import reading
from optkit.tasks.data.judged import EXPECTED
from optkit.tasks.data.numbers import grades_of
from optkit.tasks.data.tables import Table, check_folder, check_text, problem, shown

log = logging.getLogger(__name__)
QRELS, CANDIDATES = "qrels", ("candidates", "top_ranked")
ID, QUERY, DOCUMENT, DOCUMENTS, SCORE = "_id", "query-id", "corpus-id", "corpus-ids", "score"


@dataclass(frozen=True)
class Collection:
    """Queries and documents, and what is known of them by split. All names of them are text, as the files have them."""

    queries: dict[str, str]
    """Text of each query."""
    corpus: dict[str, str]
    """Title and text of each document."""
    relevance: dict[Split, dict[str, dict[str, int]]]
    """Grades of each query's judged documents: 0 for one that is not relevant."""
    candidates: dict[Split, dict[str, list[str]]]
    """Documents to rank for each query, in the file's order; a split without such a file is left out."""


def is_collection(folder: Path) -> bool:
    """Return whether a folder has the layout."""
    return (folder / QRELS).is_dir()


def read(folder: Path, wanted: Sequence[Split] = SPLITS, leave_out: bool = False) -> Collection:
    """Read a folder.

    Args:
        folder: with the layout.
        wanted: splits to read.
        leave_out: whether queries of the dev split without a relevant document are left out, and not refused.

    Raises:
        InputError: a file is missing or wrong; a name comes twice, or is in no file; a query of the dev split has no
            relevant document. The message names file and line.
    """
    check_folder(folder)
    queries, corpus = _texts(folder, "queries"), _texts(folder, "corpus")
    found = reading.find(folder / QRELS, wanted)
    tables = {split: reading.read(paths) for split, paths in found.items()}
    relevance = {split: _grades(table, queries, corpus) for split, table in tables.items()}
    if "dev" in tables:
        relevance["dev"] = _answered(tables["dev"], relevance["dev"], leave_out)
    candidates = {split: _listed(table, queries, corpus) for split, table in _candidate_tables(folder, wanted)}
    return Collection(queries, corpus, relevance, candidates)


def _texts(folder: Path, name: str) -> dict[str, str]:
    """Return texts by their names; titles go before them."""
    table = reading.read(reading.named(folder, name))
    _require(table, ID, "text")
    names, titles = _names(table, ID), table.columns.get("title", [None] * len(table))
    found: dict[str, str] = {}
    for row, (key, title, text) in enumerate(zip(names, titles, table.columns["text"], strict=True)):
        if key in found:
            raise problem(table.at(row), f"the name {shown(key)} twice", "every name once", "rename or remove one of them")
        if title:
            check_text(table.at(row), "title", title)
            text = f"{title} {text or ''}".strip() if text is None or isinstance(text, str) else text
        check_text(table.at(row), "text", text)
        found[key] = text
    return found


def _grades(table: Table, queries: dict[str, str], corpus: dict[str, str]) -> dict[str, dict[str, int]]:
    _require(table, QUERY, DOCUMENT, SCORE)
    found: dict[str, dict[str, int]] = {}
    pairs = _known(table, QUERY, queries), _known(table, DOCUMENT, corpus), grades_of(table, SCORE)
    for row, (query, document, grade) in enumerate(zip(*pairs, strict=True)):
        own = found.setdefault(query, {})
        if document in own:
            judged = f"document {shown(document)} of query {shown(query)} judged twice"
            raise problem(table.at(row), judged, "one grade", "remove one of the rows")
        own[document] = grade
    return found


def _answered(table: Table, relevance: dict[str, dict[str, int]], leave_out: bool) -> dict[str, dict[str, int]]:
    """Return the queries with a relevant document: without one, metrics are not defined."""
    lacking = [query for query, grades in relevance.items() if not any(grades.values())]
    if lacking and not leave_out:
        found = f"no relevant document for {len(lacking)} of {len(relevance)} queries (first: {shown(lacking[0])})"
        raise problem(
            table.at(_names(table, QUERY).index(lacking[0])), found, EXPECTED, "judge more documents, or remove the queries"
        )
    if lacking:
        count = len(lacking), len(relevance)
        log.warning("%s: %d of %d queries have no relevant document and are left out", table.source, *count)
    return {query: grades for query, grades in relevance.items() if any(grades.values())}


def _candidate_tables(folder: Path, wanted: Sequence[Split]) -> Iterator[tuple[Split, Table]]:
    """Yield the tables of candidates that there are."""
    for place in (folder / name for name in CANDIDATES):
        if place.is_dir():
            for split, paths in reading.find(place, wanted, required=False).items():
                yield split, reading.read(paths)
            return


def _listed(table: Table, queries: dict[str, str], corpus: dict[str, str]) -> dict[str, list[str]]:
    """Return each query's candidates, from one row for each or from one with all of them."""
    if DOCUMENTS in table.columns:
        table = _one_by_one(table)
    _require(table, QUERY, DOCUMENT)
    found: dict[str, dict[str, None]] = {}
    pairs = zip(_known(table, QUERY, queries), _known(table, DOCUMENT, corpus), strict=True)
    for row, (query, document) in enumerate(pairs):
        own = found.setdefault(query, {})
        if document in own:
            twice = f"document {shown(document)} twice for query {shown(query)}"
            raise problem(table.at(row), twice, "every candidate once", "remove one of them")
        own[document] = None
    return {query: list(own) for query, own in found.items()}


def _one_by_one(table: Table) -> Table:
    """Return a table of lists of documents with a row for each document."""
    _require(table, QUERY)
    for row, documents in enumerate(table.columns[DOCUMENTS]):
        if not isinstance(documents, list):
            raise problem(table.at(row), f"{shown(documents)} in {DOCUMENTS!r}", "a list of documents", "write […]")
    rows = [row for row, documents in enumerate(table.columns[DOCUMENTS]) for _ in documents]
    columns = {
        QUERY: [table.columns[QUERY][row] for row in rows],
        DOCUMENT: [document for documents in table.columns[DOCUMENTS] for document in documents],
    }
    return Table(table.source, columns, [table.lines[row] for row in rows], table.unit)


def _require(table: Table, *names: str) -> None:
    if lacking := [name for name in names if name not in table.columns]:
        found = f"no column {lacking[0]!r} ({table.named})"
        raise problem(table.source, found, " and ".join(map(repr, names)), "name the columns as BEIR does")


def _names(table: Table, column: str) -> list[str]:
    """Return a column of names as text; numbers are written out."""
    found = []
    for row, value in enumerate(table.columns[column]):
        name = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        check_text(table.at(row), column, name)
        found.append(name)
    return found


def _known(table: Table, column: str, known: dict[str, str]) -> list[str]:
    """Return a column of names, all of which have a text."""
    names = _names(table, column)
    for row, name in enumerate(names):
        if name not in known:
            kind = "queries" if column == QUERY else "corpus"
            found = f"{shown(name)} in {column!r}, which is in no row of {kind}"
            raise problem(table.at(row), found, f"an {ID} of {kind}", "add its text, or remove the row")
    return names
