"""The chain of a history's entries: each holds the SHA-256 of the one before it, and its own.

Entries that optkit wrote before there was a chain have neither; the first one that has them holds the SHA-256 of all text
before it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

PREVIOUS, OWN = "previous", "sha256"
Event = Mapping[str, Any]


def extended(text: str, *events: Event) -> str:
    """A history with further entries.

    Args:
        text: of the history as it is.
        events: to add.
    """
    if text and not text.endswith("\n"):
        text += "\n"
    for event in events:
        linked = {**event, PREVIOUS: head(text)}
        text += json.dumps({**linked, OWN: _digest(linked)}) + "\n"
    return text


def head(text: str) -> str:
    """SHA-256 that the next entry of a history holds as that of what is before it."""
    lines = text.splitlines()
    last = json.loads(lines[-1]) if lines else {}
    return str(last[OWN]) if OWN in last else _sha256(text)


def check(lines: Sequence[str], events: Sequence[Event]) -> None:
    """Refuse a history whose chain is not whole.

    Args:
        lines: of the file, with their ends.
        events: what the lines hold.

    Raises:
        ValueError: a line does not fit those before it.
    """
    expected = None
    for number, event in enumerate(events, 1):
        if OWN in event:
            _require_link(event, expected or _sha256("".join(lines[: number - 1])), number)
            expected = event[OWN]
        elif expected is not None:
            raise ValueError(f"line {number} has no hash, which the lines before it have: it was changed or put there")


def _require_link(event: Event, expected: str, number: int) -> None:
    if _digest({name: value for name, value in event.items() if name != OWN}) != event[OWN]:
        raise ValueError(f"line {number} was changed after it was written")
    if event.get(PREVIOUS) != expected:
        raise ValueError(f"line {number} does not follow what is before it: lines were changed, removed or moved")


def _digest(event: Event) -> str:
    return _sha256(json.dumps(event, sort_keys=True))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
