"""Rows that are documents of queries: which query a row belongs to, and which documents are relevant to it."""

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from optkit.tasks.data.numbers import grades_of
from optkit.tasks.data.tables import Table, check_text, numbered, problem, shown

log = logging.getLogger(__name__)
LABELS = ("label", "score")
"""What the column with the grade of relevance may be called, the first that is there."""
QUERY, DOCUMENT = "query", "document"
EXPECTED = "one or more with a grade above 0 for each query that is scored"
LEAVE_OUT = "add relevant documents, or leave such queries out: --task-option unanswered=left_out"


@dataclass(frozen=True)
class Judged:
    """Documents of queries, row by row, and what is known of them."""

    queries: Sequence[int]
    """Number of each row's query."""
    documents: Sequence[str]
    """Name of each row's document, which no other document of the query has."""
    relevance: Sequence[Mapping[str, int]]
    """Grades of each query's documents by name, also of those that stand in no row."""

    def scores(self, values: Sequence[float]) -> list[dict[str, float]]:
        """Return each query's documents with the values of their rows."""
        found: list[dict[str, float]] = [{} for _ in self.relevance]
        for query, document, value in zip(self.queries, self.documents, values, strict=True):
            found[query][document] = value
        return found


def grades(table: Table) -> list[int]:
    """Return the grade of every row.

    Raises:
        InputError: no column with grades, or a row whose grade is missing or none.
    """
    column = next((name for name in LABELS if name in table.columns), None)
    if set(LABELS) <= table.columns.keys():
        log.warning("%s: grades are taken from %r; %r is not read", table.source, *LABELS)
    if column is None:
        found = f"no column {' or '.join(map(repr, LABELS))} ({table.named})"
        raise problem(table.source, found, "each document's grade, 0 for none", "name it: --label-column NAME")
    return grades_of(table, column)


def check_learnable(table: Table, found: Sequence[int]) -> None:
    """Raise `InputError` where all documents to learn from are equally relevant."""
    if len(set(found)) < 2:
        same = f"the grade {found[0]} in each of {len(found)} rows"
        fix = "add rows of the others; in BEIR's layout as scores of 0, or as candidates/train.tsv"
        raise problem(table.source, same, "documents that are relevant, and ones that are not", fix)


def warn_of_doubts(table: Table, columns: Sequence[str], found: Sequence[int]) -> None:
    """Warn of documents with two grades for a query, and of queries that differ in blanks alone.

    Args:
        table: rows.
        columns: names of the columns with the query and the document.
        found: grade of each row.
    """
    grades_by_pair: dict[tuple[str, ...], set[int]] = {}
    for pair, grade in zip(zip(*(table.columns[name] for name in columns), strict=True), found, strict=True):
        grades_by_pair.setdefault(pair, set()).add(grade)
    if doubtful := sum(len(own) > 1 for own in grades_by_pair.values()):
        log.warning("%s: documents of a query with grades that contradict each other: %d", table.source, doubtful)
    queries = {query for query, _ in grades_by_pair}
    if alike := len(queries) - len({" ".join(query.split()) for query in queries}):
        log.warning(
            "%s: queries that differ from others in blanks alone, and stay queries of their own: %d", table.source, alike
        )


def of_rows(texts: Sequence[str], documents: Sequence[str], found: Sequence[int]) -> Judged:
    """Return what rows say of rankings: equal texts are the same query.

    Args:
        texts: query of each row.
        documents: document of each row.
        found: grade of each row.
    """
    queries, names, seen = numbered(texts), [], Counter[tuple[str, str]]()
    relevance: list[dict[str, int]] = [{} for _ in set(queries)]
    for query, pair, grade in zip(queries, zip(texts, documents, strict=True), found, strict=True):
        # The name decides between equal scores: it must not follow the order of the rows, which may be that of the grades.
        names.append(f"{hashlib.sha256(pair[1].encode()).hexdigest()[:16]}-{seen[pair]}")
        relevance[query][names[-1]] = grade
        seen[pair] += 1
    return Judged(queries, names, relevance)


def check_scored(table: Table, columns: Sequence[str], found: Sequence[int]) -> None:
    """Raise `InputError` where a table's rows cannot be scored: a query has no relevant document, or a document two grades.

    Args:
        table: rows to score.
        columns: names of the columns with the query and the document.
        found: grade of each row.
    """
    pairs = list(zip(*(table.columns[name] for name in columns), strict=True))
    first: dict[tuple[str, ...], int] = {}
    for row, (pair, grade) in enumerate(zip(pairs, found, strict=True)):
        if found[known := first.setdefault(pair, row)] != grade:
            other = f"the grade {grade} for what has {found[known]} at {table.at(known)}"
            raise problem(table.at(row), other, "one grade for a document of a query", "correct one of the rows")
    queries = table.columns[columns[0]]
    if lacking := unanswered(queries, found):
        count = f"{len(lacking)} of {len(set(queries))} queries"
        without = f"no relevant document for {count} (first: {shown(lacking[0])})"
        raise problem(table.at(queries.index(lacking[0])), without, EXPECTED, LEAVE_OUT)


def unanswered(queries: Sequence[str], found: Sequence[int]) -> list[str]:
    """Return the queries without a relevant document.

    Args:
        queries: query of each row.
        found: grade of each row.
    """
    answered = {query for query, grade in zip(queries, found, strict=True) if grade}
    return [query for query in dict.fromkeys(queries) if query not in answered]


def only_answered(table: Table, column: str) -> Table:
    """Return a table without the rows of queries that have no relevant document; says how many there are.

    Args:
        table: rows to score.
        column: name of the column with the query.
    """
    queries = table.columns[column]
    for row, query in enumerate(queries):
        check_text(table.at(row), column, query)
    lacking = set(unanswered(queries, grades(table)))
    if not lacking or lacking == set(queries):  # where none is left, the error about them says more
        return table
    log.warning(
        "%s: %d of %d queries have no relevant document and are left out", table.source, len(lacking), len(set(queries))
    )
    kept = [row for row, query in enumerate(queries) if query not in lacking]
    columns = {name: [values[row] for row in kept] for name, values in table.columns.items()}
    return replace(table, columns=columns, lines=[table.lines[row] for row in kept])
