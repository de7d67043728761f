"""Reads CoNLL files: a token with its tag on each line, and a blank line between sentences.

The token stands in the first column and the tag in the last, apart by tabs or by blanks. Lines of `-DOCSTART-` end a
sentence and are none; comments (`# …` before a sentence, without a tag at their end or with other columns than the first
token's line) are left out and counted.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from optkit.tasks.data.iob import TAG
from optkit.tasks.data.reading import Readers, text_of
from optkit.tasks.data.tables import Table, problem, shown

log = logging.getLogger(__name__)
TOKENS, TAGS = "tokens", "tags"
LINES = "line of each token"
"""Column with the number of each token's line."""
_DOCUMENT = "-DOCSTART-"
_FIX = "write a token and its tag on each line, apart by a tab, and a blank line between sentences"


def read(path: Path) -> Table:
    """Read the sentences of a file, a row each: `tokens`, `tags` and `LINES`.

    Raises:
        InputError: not UTF-8, no sentence, or a line with other columns than the first; the message names the line.
    """
    sentences = list(_sentences(path))
    if not sentences:
        raise problem(path, "no sentence", "a token and its tag on each line", _FIX)
    columns = {
        name: [[token[place] for token in sentence] for sentence in sentences]
        for place, name in enumerate((TOKENS, TAGS, LINES))
    }
    return Table(str(path), columns, [sentence[0][-1] for sentence in sentences])


SENTENCES = (".conll", ".iob", ".iob2", ".bio")
"""Endings that no other files have."""
READERS: Readers = dict.fromkeys((*SENTENCES, ".txt", ".tsv"), read)
"""Reader by the endings that such files have."""


def joined(sentences: Iterable[Sequence[Any]]) -> list[str]:
    """Return sentences of tokens as texts."""
    return [" ".join(map(str, tokens)) for tokens in sentences]


def _sentences(path: Path) -> Iterator[list[tuple[str, str, int]]]:
    """Yield each sentence as its tokens, each with its tag and the number of its line."""
    sentence: list[tuple[str, str, int]] = []
    comments = 0
    lines = [line.removesuffix("\r") for line in text_of(path).split("\n")]
    first = next((line for line in lines if line.strip() and not line.startswith(("# ", _DOCUMENT))), "")
    between = "\t" if "\t" in first else " "
    width = len(_fields(first, between))
    for number, line in enumerate([*lines, ""], start=1):
        fields = _fields(line, between)
        if not line.strip(" \t") or line.startswith(_DOCUMENT):
            if sentence:
                yield sentence
            sentence = []
        elif not sentence and line.startswith("# ") and (len(fields) != width or not TAG.fullmatch(fields[-1])):
            comments += 1
        else:
            _check(f"{path}, line {number}", fields, width)
            sentence.append((fields[0], fields[-1], number))
    if comments:
        log.info("%s: %d lines are comments", path, comments)


def _fields(line: str, between: str) -> list[str]:
    """Return the columns of a line; other blanks than the separator are parts of tokens."""
    fields = line.split("\t") if between == "\t" else re.split(" +", line.strip(" "))
    return [field.strip(" ") for field in fields]


def _check(where: str, fields: list[str], width: int) -> None:
    """Raise `InputError` for a line of one column, or with other columns than the first."""
    if len(fields) < 2:
        raise problem(where, f"one column, {shown(fields[0])}", "a token and its tag", _FIX)
    if len(fields) != width:
        raise problem(where, f"{len(fields)} columns", f"{width}, as in the first line", _FIX)
