"""Tokens with their tags: from columns to checked rows in IOB2, whichever of IOB1 and IOB2 (Ramshaw and Marcus 1995; Tjong
Kim Sang and Veenstra 1999) the data has.

In IOB2 `B-x` begins each entity of type x. In IOB1 `I-x` does, and `B-x` only one that follows another of its type.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from optkit.core.printable import told_apart
from optkit.tasks.base import Split
from optkit.tasks.data.classes import warn_of_likeness
from optkit.tasks.data.conll import LINES, TAGS, TOKENS
from optkit.tasks.data.data_settings import DataSettings
from optkit.tasks.data.groups import grouped
from optkit.tasks.data.iob import OUTSIDE, TAG, entities
from optkit.tasks.data.tables import Table, check_text, listed, problem, shown

log = logging.getLogger(__name__)
_TOKENS, _TAGS = (TOKENS, "words"), (TAGS, "ner_tags")
"""Usual names of the columns."""
_FORMS = "O, or B- or I- and a type, as B-person"


class Sentences(NamedTuple):
    """Rows of a split, checked."""

    table: Table
    tokens: list[list[str]]
    tags: list[list[str]]
    names: tuple[str, ...] = ()
    """Tags that the source says whole numbers stand for."""

    def place(self, row: int, token: int) -> str:
        """Return where a token was read, for messages."""
        where = self.table.at(row)
        if LINES in self.table.columns:
            return f"{where.rpartition(' ')[0]} {self.table.columns[LINES][row][token]}"
        return f"{where}, token {token + 1}"


class Start(NamedTuple):
    """The first token of an entity."""

    row: int
    token: int
    prefix: str
    """`B` or `I`; none where either scheme has a `B`: between two entities of a type."""


def read(tables: Mapping[Split, Table], settings: DataSettings) -> tuple[dict[Split, Sentences], tuple[str, ...]]:
    """Check the tokens and tags of both splits.

    Args:
        tables: as they were read.
        settings: say what the columns are called.

    Returns:
        The rows with tags in IOB2, and the tags in the order of the logits: the source's own, else `O` and the types sorted.

    Raises:
        InputError: a column is missing, a token is no text, a tag has another form, there is not a tag for each token, a
            transition is broken, or there are no entities; the message names the line or the row.
    """
    found = {split: _sentences(table, settings) for split, table in tables.items()}
    scheme = _scheme(found.values())
    for own in found.values():
        _check_transitions(own, scheme)
    found = {split: own._replace(tags=[_iob2(tags) for tags in own.tags]) for split, own in found.items()}
    labels = _labels(found["train"])
    _check_types(found["dev"], labels)
    return found, labels


def _sentences(table: Table, settings: DataSettings) -> Sentences:
    table = grouped(table, settings.group_column)
    tokens = _column(table, settings.text_column, _TOKENS, "--text-column")
    tags = _column(table, settings.label_column, _TAGS, "--label-column")
    found = Sentences(table, [], [], table.classes.get(tags, ()))
    for row, pair in enumerate(zip(table.columns[tokens], table.columns[tags], strict=True)):
        _check_lists(table.at(row), tokens, tags, *pair)
        for place, token in enumerate(pair[0]):
            if not (isinstance(token, str) and token.strip()):
                check_text(found.place(row, place), tokens, token)
        found.tokens.append(list(pair[0]))
        found.tags.append([_tag(found, row, place, tag) for place, tag in enumerate(pair[1])])
    return found


def _column(table: Table, told: str | None, usual: Sequence[str], flag: str) -> str:
    """Return the name of a column: the told one, or one of the usual ones."""
    names = [told] if told is not None else usual
    present = [name for name in names if name in table.columns]
    if len(present) != 1:
        found = f"the columns {listed(present)}" if present else f"no such column ({table.named})"
        raise problem(table.source, found, f"one of {', '.join(map(repr, names))}", f"name it: {flag} NAME")
    return present[0]


def _check_lists(where: str, tokens: str, tags: str, words: Any, marks: Any) -> None:
    """Raise `InputError` unless there are two lists of equal length with something in them."""
    for name, value in ((tokens, words), (tags, marks)):
        if not isinstance(value, list):
            fix = 'write the row as {"tokens": ["…", …], "tags": ["O", …]}, or the data as CoNLL'
            raise problem(where, f"{shown(value)} in {name!r}", "a list", fix)
    if len(words) != len(marks):
        found = f"{len(words)} tokens and {len(marks)} tags"
        raise problem(where, found, "a tag for each token", "add the missing ones, or remove the row")
    if not words:
        raise problem(where, "no tokens", "one or more", "remove the row")


def _tag(sentences: Sentences, row: int, token: int, value: Any) -> str:
    """Return a tag as text; whole numbers are looked up where the source names its classes."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(sentences.names):
        value = sentences.names[value]
    if isinstance(value, str) and TAG.fullmatch(value.strip()):
        return value.strip()
    found = f"the tag {shown(value)}"
    fix = "write O where there is no entity, B-x where one of type x begins, and I-x where it goes on"
    raise problem(sentences.place(row, token), found, _FORMS, fix)


def _starts(rows: Iterable[Sequence[str]]) -> Iterator[Start]:
    """Yield where entities begin."""
    for row, tags in enumerate(rows):
        for kind, first, _ in entities(tags):
            follows = first > 0 and tags[first - 1].partition("-")[2] == kind
            prefix = tags[first][0]
            yield Start(row, first, "" if prefix == "B" and follows else prefix)


def _scheme(splits: Iterable[Sentences]) -> str:
    """Return the prefix that begins most entities: `B` in IOB2, `I` in IOB1."""
    splits = list(splits)
    counts = Counter(start.prefix for own in splits for start in _starts(own.tags))
    if counts["I"] <= counts["B"]:
        return "B"
    log.info("%s: tags of IOB1, where I- begins an entity", ", ".join(own.table.source for own in splits))
    return "I"


def _check_transitions(sentences: Sentences, scheme: str) -> None:
    """Raise `InputError` for an entity that begins otherwise than those of its data."""
    for start in _starts(sentences.tags):
        if start.prefix not in ("", scheme):
            tags = sentences.tags[start.row]
            tag, before = tags[start.token], tags[start.token - 1] if start.token else "the begin of a sentence"
            expected = (
                f"{scheme}{tag[1:]}, as most entities of the data begin with {scheme}- (IOB{2 if scheme == 'B' else 1})"
            )
            fix = "correct the tag, or the one before it"
            raise problem(sentences.place(start.row, start.token), f"{tag} after {before}", expected, fix)


def _iob2(tags: Sequence[str]) -> list[str]:
    """Return tags with `B-` where an entity begins."""
    found = list(tags)
    for kind, first, _ in entities(tags):
        found[first] = f"B-{kind}"
    return found


def _labels(train: Sentences) -> tuple[str, ...]:
    """Return all tags; each type has both of its own."""
    present = sorted({kind for tags in train.tags for kind, *_ in entities(tags)})
    if not present:
        found = f"no entity in {len(train.tags):,} rows"
        raise problem(train.table.source, found, "tags other than O", "add rows with entities")
    warn_of_likeness(train.table, present)
    own = [name for name in train.names if TAG.fullmatch(name)]
    kinds = dict.fromkeys([*(tag.partition("-")[2] for tag in own if tag != OUTSIDE), *present])
    return tuple(dict.fromkeys([*own, OUTSIDE, *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI")]))


def _check_types(dev: Sentences, labels: Sequence[str]) -> None:
    """Raise `InputError` for an entity of a type that the train split does not have."""
    for row, tags in enumerate(dev.tags):
        for kind, first, _ in entities(tags):
            if f"B-{kind}" not in labels:
                given, *known = told_apart([kind, *(label[2:] for label in labels if label.startswith("B-"))])
                found = f"the type {kind!r}" if given == kind else f"the type {given}"
                fix = "correct the tag, or add rows of this type to the train file"
                raise problem(dev.place(row, first), found, f"one of the train file: {listed(known)}", fix)
