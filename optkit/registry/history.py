"""A model's history, one JSON line for each thing that was done; and putting right what an interrupted one left.

What is live is what `config.pbtxt` says: replacing that file is the moment when a change happens. The entry of the change is
written before, and the file names it: so the history always has what the file tells of, and one that was cut off shows. An
entry whose change was not made is taken back by whoever has the lock next. The model's card follows.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from optkit.core.atomic import file_hash
from optkit.core.errors import InputError
from optkit.core.json_door import parse_json, read_bytes
from optkit.core.signature import now, who
from optkit.registry import chain, disk, layout, live_config, text_pipeline
from optkit.registry.layout import CARD, CONFIG, HISTORY, PROVENANCE
from optkit.serving import repository

log = logging.getLogger(__name__)
PUBLISHED, ROLLED_BACK, PRUNED, COMPLETED = "publish", "rollback", "prune", "completed"
"""Older publishers wrote an entry after its change; `completed` stands for one that an interrupted one had not written."""
_WHY = "found so; who did it was interrupted before writing it down"
_WENT_LIVE = (PUBLISHED, ROLLED_BACK, COMPLETED)
RESTORE = "restore it from a backup"
Event = dict[str, Any]


class _Event(TypedDict):
    event: str
    version: int
    at: NotRequired[str]
    by: NotRequired[str]
    provenance: NotRequired[str]
    signature: NotRequired[str]
    previous: NotRequired[str]
    sha256: NotRequired[str]


def event(what: str, version: int, **more: Any) -> Event:
    """One entry: what was done to which version, by whom and when."""
    return {"at": now(), "event": what, "version": version, "by": who(), **more}


def read(model: Path) -> list[Event]:
    """Everything that was done, the first thing first.

    Raises:
        InputError: a line is not one that publishing writes, or not where or as it was written.
    """
    path = model / HISTORY
    lines = _text(model).splitlines(keepends=True)
    found: list[Event] = [
        parse_json(line, f"{path}, line {number}", _Event, RESTORE) for number, line in enumerate(lines, start=1)
    ]
    try:
        chain.check(lines, found)
    except ValueError as error:
        raise InputError(f"{path}: not a history written by optkit ({error}); {RESTORE}") from error
    return found


def head(model: Path) -> str:
    """SHA-256 that ties what comes next to all that was done to a model, which need not exist."""
    return chain.head(_text(model) if model.exists() else "")


def append(model: Path, *events: Event) -> None:
    """Add entries; a reader sees the old file or the new one."""
    with appending(model, *events) as put_in_place:
        put_in_place()


def appending(model: Path, *events: Event) -> AbstractContextManager[Callable[[], None]]:
    """Entries to add as soon as what they tell has happened; the space for them is taken before."""
    read(model)
    return disk.prepared(model / HISTORY, chain.extended(_text(model), *events))


@contextmanager
def recording(model: Path, event: Event, card: Path) -> Iterator[None]:
    """Write the entry of a version that goes live within the block, and show its card then; without new space for that.

    Where the block fails, and the version is not live, the entry is taken back.
    """
    with (
        appending(model, event) as write_down,
        disk.prepared(model / HISTORY, _text(model)) as take_back,
        disk.prepared(model / CARD, card.read_bytes()) as show,
    ):
        write_down()
        try:
            yield
        except BaseException:
            if live_config.entry(model) != live_entry(model):
                take_back()
            raise
        show()


def went_live(model: Path) -> list[int]:
    """Versions in the order in which they became live."""
    return [event["version"] for event in _made_live(read(model))]


def live_entry(model: Path) -> str | None:
    """SHA-256 of the last entry that made a version live, which `config.pbtxt` names; None where it names none."""
    made = _made_live(read(model))
    return _name(made[-1]) if made else None


def publication(model: Path, version: int) -> Event | None:
    """The entry with which a version went live first.

    None where an older publisher was interrupted before writing it.

    Raises:
        InputError: the history should know the version and does not.
    """
    events = read(model)
    found = [event for event in events if event["version"] == version and "provenance" in event]
    if found:
        return found[0]
    folder = model / str(version)
    if "history" in layout.provenance(folder) and not layout.copied(folder):  # its entry was written before it
        raise InputError(f"{model / HISTORY}: lacks version {version}, which is there: its end was cut off; {RESTORE}")
    if version <= max((event["version"] for event in events), default=0):
        raise InputError(f"{folder}: not in the model's history; made by hand, remove it")
    return None


def belongs(published: Event, origin: Mapping[str, Any]) -> bool:
    """Whether the entry of a version follows what its provenance says was before it."""
    return published["event"] == COMPLETED or origin.get("history") == published.get(chain.PREVIOUS)


def unfinished(model: Path) -> Event | None:
    """The last entry, where its change was not made: who wrote it was interrupted before `config.pbtxt`.

    Raises:
        InputError: history and configuration do not belong together.
    """
    events, live, named = read(model), layout.live(model), live_config.entry(model)
    made = _made_live(events)
    fits = [(event["version"], _name(event)) == (live, named) for event in made]
    if fits[-1:] == [True] or _is_older(events, named):
        return None
    if fits[-2:] == [True, False] and events[-1] is made[-1] and _name(made[-1]) and not _was_live(model, made[-1], live):
        return made[-1]
    if named in (None, *map(_name, made)):
        raise InputError(changed(model, made[-1]["version"] if made else live))
    raise InputError(
        f"{model / HISTORY}: lacks the entry {str(named)[:16]} by which version {live} went live: its end was cut off; "
        f"{RESTORE}, or go on without it: optkit rollback {model.name} --to {live}"
    )


def mend(model: Path) -> None:
    """Finish, or take back, what a publisher that was killed had begun; for the holder of the lock alone.

    A version that never went live is removed, and its entry; a version that is gone is written down, and so is a switch
    that an older publisher made.

    Raises:
        InputError: the live version is gone, or history and configuration do not belong together.
    """
    live, events, undone = layout.live(model), read(model), unfinished(model)
    if live not in repository.versions(model):
        raise InputError(missing(model, live))
    for version in repository.versions(model):
        never = undone is not None and (undone["event"], undone["version"]) == (PUBLISHED, version)
        if version != live and (never or publication(model, version) is None):
            log.warning("%s: removed, its publishing was interrupted before it went live", model / str(version))
            disk.remove(model / str(version), model.parent)
    if undone is not None:
        lines = _text(model).splitlines(keepends=True)
        disk.replace(model / HISTORY, "".join(lines[:-1]))
        events = events[:-1]
    if found := _unwritten(model, live, events):
        append(model, *found)
    show_card(model, live)
    text_pipeline.put_right(model, live)


def missing(model: Path, live: int) -> str:
    """What to say, and do, where the live version is gone."""
    return f"{model / CONFIG}: version {live} is live, which is missing; go back: optkit rollback {model.name} --to N"


def changed(model: Path, live: int) -> str:
    """What to say, and do, where the configuration is another one than was written."""
    return f"{model / CONFIG}: not as it was published; write it again: optkit rollback {model.name} --to {live}"


def show_card(model: Path, version: int) -> None:
    """Put a version's card beside the versions."""
    card = (model / str(version) / CARD).read_bytes()
    if not (model / CARD).is_file() or (model / CARD).read_bytes() != card:
        disk.replace(model / CARD, card)


def _text(model: Path) -> str:
    path = model / HISTORY
    try:
        return read_bytes(path, RESTORE).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a history written by optkit ({error}); {RESTORE}") from error


def _made_live(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if event["event"] in _WENT_LIVE]


def _name(event: Event) -> str | None:
    """What the configuration names an entry by that made a version live."""
    return None if event["event"] == COMPLETED else event.get(chain.OWN)


def _was_live(model: Path, event: Event, live: int) -> bool:
    """Whether the change of an entry was made, although another version is live: its card is shown after that."""
    own, shown = model / str(event["version"]) / CARD, model / CARD
    return event["version"] != live and own.is_file() and shown.is_file() and file_hash(own) == file_hash(shown)


def _is_older(events: Sequence[Event], named: str | None) -> bool:
    """Whether an older publisher was the last: it wrote entries after their changes, and not always."""
    return named is None and not (events and chain.OWN in events[-1])


def _unwritten(model: Path, live: int, events: Sequence[Event]) -> list[Event]:
    """Entries for what was done and not written down."""
    last, there = {event["version"]: event["event"] for event in events}, repository.versions(model)
    found = [event(PRUNED, version, why=_WHY) for version in last if version not in there and last[version] != PRUNED]
    if [each["version"] for each in _made_live(events)[-1:]] != [live]:
        found.append(event(COMPLETED, live, provenance=file_hash(model / str(live) / PROVENANCE), why=_WHY))
    return found
