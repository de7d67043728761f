"""A model's history, one JSON line for each thing that was done; and putting right what an interrupted one left.

What is live is what `config.pbtxt` says: replacing that file is the moment when a change happens. The history and the
model's card follow it, and whoever has the lock next brings them into line.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from optkit.core.atomic import file_hash
from optkit.core.errors import InputError
from optkit.core.json_door import parse_json, read_bytes
from optkit.core.signature import now, who
from optkit.registry import disk, layout, text_pipeline
from optkit.registry.layout import CARD, CONFIG, HISTORY, PROVENANCE
from optkit.serving import repository

log = logging.getLogger(__name__)
PUBLISHED, ROLLED_BACK, PRUNED, COMPLETED = "publish", "rollback", "prune", "completed"
_WHY = "found so; who did it was interrupted before writing it down"
_WENT_LIVE = (PUBLISHED, ROLLED_BACK, COMPLETED)


class _Event(TypedDict):
    event: str
    version: int
    at: NotRequired[str]
    by: NotRequired[str]
    provenance: NotRequired[str]


def event(what: str, version: int, **more: Any) -> dict[str, Any]:
    """One line: what was done to which version, by whom and when."""
    return {"at": now(), "event": what, "version": version, "by": who(), **more}


def read(model: Path) -> list[dict[str, Any]]:
    """Everything that was done, the first thing first.

    Raises:
        InputError: a line is not one that publishing writes.
    """
    path, fix = model / HISTORY, "restore it from a backup"
    lines = read_bytes(path, fix).splitlines()
    return [parse_json(line, f"{path}, line {number}", _Event, fix) for number, line in enumerate(lines, start=1)]


def text(*events: dict[str, Any]) -> str:
    """The lines of a file."""
    return "".join(json.dumps(event) + "\n" for event in events)


def append(model: Path, *events: dict[str, Any]) -> None:
    """Add lines; a reader sees the old file or the new one."""
    with appending(model, *events) as put_in_place:
        put_in_place()


def appending(model: Path, *events: dict[str, Any]) -> AbstractContextManager[Callable[[], None]]:
    """Lines to add as soon as what they tell has happened; the space for them is taken before."""
    return disk.prepared(model / HISTORY, text(*read(model), *events))


@contextmanager
def recording(model: Path, version: int, event: dict[str, Any]) -> Iterator[Callable[[], None]]:
    """The line and the card of a version that is about to go live; what is yielded puts them in place, without new space."""
    card = (model / str(version) / CARD).read_bytes()
    with appending(model, event) as write_down, disk.prepared(model / CARD, card) as show:

        def done() -> None:
            write_down()
            show()

        yield done


def went_live(model: Path) -> list[int]:
    """Versions in the order in which they became live."""
    return [event["version"] for event in read(model) if event["event"] in _WENT_LIVE]


def fingerprint(model: Path, version: int) -> str | None:
    """SHA-256 of a version's provenance as it was written down when the version went live first.

    None for a version above all that the history knows: its publishing was interrupted, and left it whole.

    Raises:
        InputError: the history should know the version and does not.
    """
    events = read(model)
    found = [event["provenance"] for event in events if event["version"] == version and "provenance" in event]
    if not found and version <= max((event["version"] for event in events), default=0):
        raise InputError(f"{model / str(version)}: not in the model's history; made by hand, remove it")
    return found[0] if found else None


def mend(model: Path) -> None:
    """Finish, or take back, what a publisher that was killed had begun; for the holder of the lock alone.

    A version that never went live is removed; a switch that was made, or a version that is gone, is written down.

    Raises:
        InputError: the live version is gone.
    """
    live, events = layout.live(model), read(model)
    last = {event["version"]: event["event"] for event in events}
    there = repository.versions(model)
    if live not in there:
        raise InputError(missing(model, live))
    for version in there:
        if version not in last and version != live:
            log.warning("%s: removed, its publishing was interrupted before it went live", model / str(version))
            disk.remove(model / str(version), model.parent)
    found = [event(PRUNED, version, why=_WHY) for version in last if version not in there and last[version] != PRUNED]
    if went_live(model)[-1:] != [live]:
        found.append(event(COMPLETED, live, provenance=file_hash(model / str(live) / PROVENANCE), why=_WHY))
    if found:
        append(model, *found)
    show_card(model, live)
    text_pipeline.put_right(model, live)


def missing(model: Path, live: int) -> str:
    """What to say, and do, where the live version is gone."""
    return f"{model / CONFIG}: version {live} is live, which is missing; go back: optkit rollback {model.name} --to N"


def show_card(model: Path, version: int) -> None:
    """Put a version's card beside the versions."""
    card = (model / str(version) / CARD).read_bytes()
    if not (model / CARD).is_file() or (model / CARD).read_bytes() != card:
        disk.replace(model / CARD, card)
