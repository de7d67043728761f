"""What is shown of text from data, models and servers: control characters are written out, cells are never formulas."""

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from optkit.core.errors import MachineError

_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and new line, marks that turn the direction of text around, and halves of surrogate pairs."""
_UNSEEN = re.compile(
    "[\\s\x00-\x1f\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]"
)
"""Blanks, control characters, and what Unicode says may be shown as nothing (Default_Ignorable_Code_Point)."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""Begins of what spreadsheets compute, or skip before they look for it."""


def escaped(text: str) -> str:
    """Write control characters out: the byte that begins a terminal's commands becomes `\\x1b`."""
    return _HIDDEN.sub(lambda match: ascii(match[0])[1:-1], text)


def seen(name: str) -> str:
    """Return what is seen of a name: without blanks and what is shown as nothing, and in one of the ways to write letters
    (NFKC), in which `é` is one character also where it was two."""
    return _UNSEEN.sub("", unicodedata.normalize("NFKC", name))


def told_apart(names: Iterable[str]) -> list[str]:
    """Return names as they are, but those of which others are seen alike with everything beyond ASCII written out."""
    names = list(names)
    alike = Counter(seen(name) for name in set(names))
    return [ascii(name) if alike[seen(name)] > 1 else name for name in names]


def cell(value: object) -> object:
    """Return a cell of a CSV file: text that a spreadsheet would compute begins with an apostrophe; numbers stay numbers."""
    if not isinstance(value, str):
        return value
    return escaped(f"'{value}" if value.startswith(_FORMULA) else value)


class Printable:
    """A text stream that writes control characters out."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a text."""
        with _written():
            self.stream.write(escaped(text))
        return len(text)

    def flush(self) -> None:
        """Write out what is held back."""
        with _written():
            self.stream.flush()

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts one after the other."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def _written() -> Iterator[None]:
    """Name the stream where it cannot be written; a reader that has gone (`| head`) is no fault."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise MachineError(f"standard output cannot be written: {error.strerror}") from error


@contextmanager
def printing() -> Iterator[None]:
    """Have standard output write control characters out, whoever prints; bars are drawn on standard error."""
    before = sys.stdout
    sys.stdout = Printable(before)
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout = before


def say(text: object) -> None:
    """Print to standard error, with control characters written out."""
    print(escaped(str(text)), file=sys.stderr, flush=True)
