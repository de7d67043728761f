"""Reads BEIR's layout as rows: each is a document of a query, to learn from or to rank."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optkit.tasks.base import Split
from optkit.tasks.data import beir, judged
from optkit.tasks.data.judged import Judged
from optkit.tasks.data.tables import Table, listed, problem, shown

log = logging.getLogger(__name__)


def read(folder: Path, leave_out: bool = False) -> tuple[dict[Split, Table], Judged]:
    """Read BEIR's layout: a row for each document to learn from, and for each to rank.

    To rank are the candidates where there are some, and else the judged documents.

    Args:
        folder: with the layout.
        leave_out: whether queries to score that have no relevant document are left out, and not refused.

    Returns:
        Tables with the columns `query`, `document` and `label`, and what is known of the dev split's rows.

    Raises:
        InputError: see `beir.read`; or a query that is scored has no candidates.
    """
    found = beir.read(folder, leave_out=leave_out)
    more = found.candidates.get("train", {})
    train = {query: list(dict.fromkeys([*own, *more.get(query, [])])) for query, own in found.relevance["train"].items()}
    dev = {query: _to_rank(found, query, folder) for query in found.relevance["dev"]}
    relevance = list(found.relevance["dev"].values())
    _say_what_is_left_out(found, dev, folder)
    tables: dict[Split, Table] = {"train": _table(found, "train", train, folder), "dev": _table(found, "dev", dev, folder)}
    queries = [number for number, own in enumerate(dev.values()) for _ in own]
    return tables, Judged(queries, [document for own in dev.values() for document in own], relevance)


def _to_rank(found: beir.Collection, query: str, folder: Path) -> list[str]:
    if "dev" not in found.candidates:
        return list(found.relevance["dev"][query])
    documents = found.candidates["dev"].get(query, [])
    if not documents:
        place = f"{folder}, candidates of dev"
        raise problem(place, f"none for the query {shown(query)}", "one or more", "add them, or remove its judgements")
    return documents


def _say_what_is_left_out(found: beir.Collection, dev: Mapping[str, Sequence[str]], folder: Path) -> None:
    """Warn of candidates of queries without judgements, and of relevant documents that are no candidates."""
    relevance = found.relevance["dev"]
    if unknown := [query for query in found.candidates.get("dev", {}) if query not in relevance]:
        log.warning("%s: candidates of queries without judgements are left out: %s", folder, listed(unknown))
    relevant = {query: {name for name, grade in own.items() if grade} for query, own in relevance.items()}
    missed = [len(own.difference(dev[query])) for query, own in relevant.items()]
    if any(missed):
        log.warning(
            "%s: %d relevant documents of %d queries are not among their candidates: no order of these is perfect",
            *(folder, sum(missed), sum(map(bool, missed))),
        )


def _table(found: beir.Collection, split: Split, rows: Mapping[str, Sequence[str]], folder: Path) -> Table:
    pairs = [(query, document) for query, documents in rows.items() for document in documents]
    columns: dict[str, Sequence[Any]] = {
        judged.QUERY: [found.queries[query] for query, _ in pairs],
        judged.DOCUMENT: [found.corpus[document] for _, document in pairs],
        judged.LABELS[0]: [found.relevance[split][query].get(document, 0) for query, document in pairs],
    }
    return Table(f"{folder}, {split}", columns, [f"{document} of {query}" for query, document in pairs], "document")
