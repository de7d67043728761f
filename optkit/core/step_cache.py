"""Finished steps on disk: each is a folder that appears whole or not at all, keyed by what it depends on.

A step's folder holds `record.json`: the key, what the key was made of, and the SHA-256 of every file of the step. A run
that was killed finds the finished steps by their keys and never sees a half-written one, because a step is made in a
temporary folder beside its place and renamed.

In a mirror of an object store (`optkit.core.mirror`) it is there before it takes its place here, and a step that another
machine has finished is fetched instead of made.

What took long to make is not deleted when another key takes its place: it goes to `.superseded/` beside it, and comes back
from there, sub-steps included, as soon as its key is asked for again.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from optkit.core import locks, mirror, temporary
from optkit.core.atomic import disk_error, empty, file_hash, flush, flush_tree, hashes, refusal_behind, write_json
from optkit.core.errors import InputError
from optkit.core.json_door import checked, read_json

RECORD = "record.json"
SUPERSEDED = ".superseded"
KEPT = 5
"""How many superseded outputs of a step are kept, those set aside last."""
_WAIT_S = 3600.0  # for a rename by another process: what took hours to make is not given up in a hurry
log = logging.getLogger(__name__)


class _Record(TypedDict):
    key: str
    content: NotRequired[str]
    depends_on: dict[str, Any]
    files: dict[str, str]


class OfEngines(TypedDict):
    """What a step depends on that was made of a recipe's engines."""

    engines: str
    baseline: NotRequired[str]


def step(folder: Path, depends_on: Mapping[str, Any], make: Callable[[Path], None], keep: bool = False) -> str:
    """Have `folder` hold what `make` writes, unless it already does; returns the key.

    Args:
        folder: where the step's output lies when it is finished.
        depends_on: everything that shapes the output, in JSON's types.
        make: writes the output into the (empty) folder it is given.
        keep: move an output of another key to `.superseded/` instead of deleting it, and take one of this key from there:
            for what took long to make. The last `KEPT` are kept.

    Raises:
        InputError: a file of the finished step is not as it was written, or its record is broken.
        MachineError: the disk is full or cannot be written.
    """
    key = key_of(depends_on)
    if is_finished(folder, key):
        verify(folder)
        return key
    if keep and _taken_back(folder, key):
        return key
    far = mirror.of(folder)
    with writing(folder, keep) as unfinished:
        if far and far.fetch(folder, key, unfinished, RECORD):
            return key
        make(unfinished)
        files = hashes(unfinished)
        record = {
            "key": key,
            "content": key_of({"key": key, "files": files}),
            "depends_on": dict(depends_on),
            "files": files,
        }
        write_json(unfinished / RECORD, record)
        if far and not far.put(folder, key, unfinished, RECORD):  # another machine was quicker
            empty(unfinished)
            far.fetch(folder, key, unfinished, RECORD)
    return key


def fetch(folder: Path, key: str) -> None:
    """Have a folder of a mirror hold the finished step of a key that another machine has made.

    Raises:
        InputError: the store does not have it, or something else in its place.
        MachineError: the store refuses, or is not there.
    """
    far = mirror.of(folder)
    if far is None or is_finished(folder, key):
        return
    with writing(folder) as unfinished:
        if not far.fetch(folder, key, unfinished, RECORD):
            raise InputError(f"{far.store.url}: has no step {far.name(folder)} of the key {key[:16]}; run the command again")


def key_of(depends_on: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON, in which names are text: as numbers, 10 would stand after 9 and not after 1."""
    content = json.loads(json.dumps(depends_on))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def key_at(folder: Path) -> str:
    """The key of the finished step in a folder."""
    return str(read_record(folder)["key"])


def content_at(folder: Path) -> str:
    """What steps that are made from a finished one depend on: its key and its files.

    Not all that is made anew comes out as it was: of two engines of equal speed now one is chosen and now the other. A
    record of an older optkit has the key alone.
    """
    record = read_record(folder)
    return str(record.get("content", record["key"]))


def read_record(folder: Path) -> dict[str, Any]:
    """What the record of a finished step says: `key`, `depends_on` and `files`, and `sealed` (see `optkit.core.seals`).

    Raises:
        InputError: it is not such a record.
    """
    record: dict[str, Any] = read_json(folder / RECORD, _Record, _fix(folder))
    return record


def made_of(folder: Path, kind: Any = dict[str, Any]) -> dict[str, Any]:
    """What a finished step depends on.

    Args:
        folder: of the step.
        kind: annotation that it has to fit.

    Raises:
        InputError: the record is none, or of something else.
    """
    found: dict[str, Any] = checked(read_record(folder)["depends_on"], kind, folder / RECORD, _fix(folder))
    return found


def is_finished(folder: Path, key: str) -> bool:
    """Whether the folder holds the finished step of that key."""
    return (folder / RECORD).is_file() and key_at(folder) == key


@contextmanager
def writing(folder: Path, keep: bool = False) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place when the block ends well and vanishes when it does not.

    Args:
        folder: what is replaced.
        keep: move what stood there before to `.superseded/` beside it instead of deleting it; the last `KEPT` are kept.
    """
    with ExitStack() as stack:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            unfinished = stack.enter_context(temporary.folder(f".{folder.name}.{temporary.UNFINISHED}", folder.parent))
        except OSError as error:
            raise disk_error(folder, error) from error
        try:
            yield unfinished
            flush_tree(unfinished)
            _put_in_place(unfinished, folder, keep)
        except Exception as error:
            if refused := refusal_behind(error):
                raise disk_error(folder, refused) from error
            raise


def verify(folder: Path, *names: str) -> None:
    """Compare the files of a finished step with the SHA-256 in its record, and what it depends on with its key.

    Args:
        folder: the step's.
        names: of the files that are going to be read; all where none is given.

    Raises:
        InputError: naming the file that is missing or changed.
    """
    record = read_record(folder)
    if key_of(record["depends_on"]) != record["key"]:
        raise InputError(
            f"{folder / RECORD}: depends_on is not what the key was made of: the file changed after it was written. Delete "
            f"{folder} to have it made again"
        )
    for name in names or record["files"]:
        path, expected = folder / name, record["files"].get(name, "nothing")
        found = file_hash(path) if path.is_file() else "missing"
        if found != expected:
            raise InputError(
                f"{path}: SHA-256 is {found[:16]}, {RECORD} says {expected[:16]}: the file changed after it was written. "
                f"Delete {folder} to have it made again"
            )


def _fix(folder: Path) -> str:
    return f"delete {folder} to have it made again"


def _put_in_place(unfinished: Path, folder: Path, keep: bool) -> None:
    """Rename, unless another process has put the same step there meanwhile; one process at a time."""
    with _only_one(folder):
        if (unfinished / RECORD).is_file() and is_finished(folder, key_at(unfinished)):
            return
        _set_aside(folder, keep)
        os.replace(unfinished, folder)
        flush(folder.parent)
        _remove_oldest(folder)


def _only_one(folder: Path) -> AbstractContextManager[None]:
    """Lock on the places of all steps in a folder."""
    return locks.exclusive(folder.parent / ".lock", str(folder.parent), f"putting {folder.name} in place", _WAIT_S)


def _taken_back(folder: Path, key: str) -> bool:
    """Put the superseded output of a key in its place again, if there is one that is whole.

    Both are renamed, one after the other: killed between the two, both lie in `.superseded/` and are found there.
    """
    if not _aside(folder, key).is_dir():
        return False
    with _only_one(folder):
        if is_finished(folder, key):  # another process was quicker
            return True
        aside = _aside(folder, key)
        if not _is_whole(aside, key):
            return False
        _set_aside(folder, keep=True)
        os.replace(aside, folder)
        flush(folder.parent)
    log.info("%s: made before with these settings and data, and found again in %s", folder, SUPERSEDED)
    return True


def _is_whole(aside: Path, key: str) -> bool:
    """Whether a superseded folder holds the finished step of a key, unchanged."""
    try:
        if not is_finished(aside, key):
            return False
        verify(aside)
    except InputError as error:
        log.warning("%s: not taken back, it is made anew: %s", aside, error)
        return False
    return True


def _aside(folder: Path, key: str) -> Path:
    """Place of a step's output after another one has superseded it."""
    return folder.parent / SUPERSEDED / f"{folder.name}-{key[:8]}"


def _set_aside(folder: Path, keep: bool) -> None:
    if not folder.exists():
        return
    aside = _aside(folder, key_at(folder) if (folder / RECORD).is_file() else "unknown")
    aside.parent.mkdir(exist_ok=True)
    shutil.rmtree(aside, ignore_errors=True)
    os.utime(folder)  # the time at which it was superseded
    os.replace(folder, aside)
    if not keep:
        shutil.rmtree(aside)


def _remove_oldest(folder: Path) -> None:
    """Delete the superseded outputs of a step but the last; what is no step stays."""
    found = [path.parent for path in (folder.parent / SUPERSEDED).glob(f"{folder.name}-????????/{RECORD}") if path.is_file()]
    for old in sorted(found, key=lambda path: path.stat().st_mtime_ns)[:-KEPT]:
        (old / RECORD).unlink()  # first, so that a part of it is never taken for the whole
        shutil.rmtree(old)
