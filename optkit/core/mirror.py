"""Checkpoints in an object store: each machine works in a folder of its own, the mirror, and finds there what others made.

A mirror lies in the cache folder and is used as any folder of checkpoints. A finished step is in the store before it is in
the mirror. What says so never changes there: the content of files under their SHA-256, then the record that names them,
under the step's place and key, and only if there is none. So a step is there whole or not at all, and of two who made the
same one the first counts, for both.

    store.json                what tells this store from all others; mirrors are called after it
    objects/<SHA-256>         content of a file
    steps/<place>/<key>.json  record of a finished step
    files/<place>             what does change: snapshots of trainings, and notes of a run on a cluster

All functions take paths in a mirror or elsewhere, where they do nothing.
"""

import json
import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypedDict

from optkit.core import temporary
from optkit.core.atomic import disk_error, file_hash, write_json
from optkit.core.cache_folder import cache_folder
from optkit.core.errors import InputError
from optkit.core.json_door import parse_json, read_json
from optkit.core.object_store import Changed, Store, is_url

WHAT = "checkpoints"
MARK = "store.json"
_ID = re.compile(r"[0-9a-f]{32}")


class _Mark(TypedDict):
    id: str


class _Mirrored(TypedDict):
    url: str


class _Record(TypedDict):
    key: str
    files: dict[str, str]


@dataclass(frozen=True)
class Mirror:
    """A folder of checkpoints that has an object store behind it."""

    root: Path
    store: Store

    def name(self, path: Path) -> str:
        """Return the name of a file or folder below the root, as the store has it."""
        return path.resolve().relative_to(self.root).as_posix()

    def fetch(self, folder: Path, key: str, into: Path, record: str) -> bool:
        """Fill an empty folder with a finished step, if the store has it.

        Args:
            folder: place of the step.
            key: of the step.
            into: the empty folder.
            record: name of the file with the step's record.

        Raises:
            InputError: the store holds something else than what was put there.
            MachineError: the store refuses, or is not there.
        """
        name = self._record(folder, key)
        try:
            content, _ = self.store.read(name)
        except Changed:
            return False
        found: _Record = parse_json(content, f"{self.store.url}/{name}", _Record, _fix(name))
        if found["key"] != key:
            raise InputError(f"{self.store.url}/{name}: is the record of {found['key'][:16]}; {_fix(name)}")
        for file, digest in found["files"].items():
            self._get(file, digest, into, name)
        (into / record).write_bytes(content)
        return True

    def _get(self, file: str, digest: str, into: Path, record: str) -> None:
        """Fetch the content of one file of a step, by its SHA-256."""
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{self.store.url}/{record}: names {file!r}, which is not within the step; {_fix(record)}")
        name = f"objects/{digest}"
        try:
            self.store.get(name, into / file)
        except Changed as error:
            raise InputError(f"{self.store.url}/{name}: is missing, {record} names it; {_fix(record)}") from error
        if (hashed := file_hash(into / file)) != digest:
            raise InputError(f"{self.store.url}/{name}: SHA-256 is {hashed[:16]}: it changed; delete it, and {_fix(record)}")

    def put(self, folder: Path, key: str, made: Path, record: str) -> bool:
        """Put a finished step, its record last; returns False where the store had one of the same key already.

        Args:
            folder: place of the step.
            key: of the step.
            made: folder that has its files.
            record: name of the file with the step's record.

        Raises:
            MachineError: the store refuses, or is not there.
        """
        content = (made / record).read_bytes()
        files: dict[str, str] = json.loads(content)["files"]
        for file, digest in files.items():
            if not self.store.has(name := f"objects/{digest}"):
                self.store.put(name, made / file)
        try:
            self.store.swap(self._record(folder, key), content, None)
        except Changed:
            return False
        return True

    def _record(self, folder: Path, key: str) -> str:
        return f"steps/{self.name(folder)}/{key}.json"


def place(checkpoints: str | Path) -> Path:
    """Return the folder of checkpoints that is meant: the one that is named, or this machine's mirror of an object store.

    Args:
        checkpoints: a folder, or a URL such as `s3://bucket/folder`.

    Raises:
        InputError: the URL is none, or that of something else.
        MachineError: the store refuses, is not there or has no conditional writes, or the mirror cannot be made.
    """
    if not is_url(str(checkpoints), WHAT):
        return Path(checkpoints)
    store = Store(str(checkpoints), WHAT)
    root = _home() / _id(store)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(root, error) from error
    write_json(root / MARK, {"url": store.url})
    return root


def url_of(root: Path) -> str | None:
    """The URL of the store that a folder of checkpoints mirrors; None where it mirrors none."""
    found = of(root)
    return found.store.url if found else None


def of(path: Path) -> Mirror | None:
    """The mirror that a path lies in, None where it lies in none."""
    try:
        home, path = _home(), path.resolve()
    except RuntimeError:  # a user without a home has no mirrors
        return None
    if not path.is_relative_to(home) or path == home:
        return None
    root = home / path.relative_to(home).parts[0]
    mirrored: _Mirrored = read_json(root / MARK, _Mirrored, "give the store's URL again, which writes it anew")
    return Mirror(root, Store(mirrored["url"], WHAT))


def send(path: Path) -> None:
    """Put a file that changes, whatever the store had of it.

    Raises:
        MachineError: the store refuses, or is not there.
    """
    if far := of(path):
        far.store.put(f"files/{far.name(path)}", path)


def receive(path: Path) -> bool:
    """Take a file that changes as the store has it; returns whether it has one.

    Raises:
        MachineError: the store refuses, or is not there.
    """
    if not (far := of(path)):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary.file(path) as unfinished:
        try:
            far.store.get(f"files/{far.name(path)}", unfinished)
        except Changed:
            return False
        os.replace(unfinished, path)
    return True


def receive_new(folder: Path) -> None:
    """Take the files below a folder that are not here yet.

    Raises:
        MachineError: the store refuses, or is not there.
    """
    if far := of(folder):
        for name in far.store.below(f"files/{far.name(folder)}"):
            path = far.root / PurePosixPath(name).relative_to("files")
            if not path.exists():
                receive(path)


def forget(path: Path) -> None:
    """Remove a file that changes, or all of a folder, from the store.

    Raises:
        MachineError: the store refuses, or is not there.
    """
    if far := of(path):
        name = f"files/{far.name(path)}"
        with suppress(Changed):  # it is gone already
            far.store.delete(far.store.below(name) or [name])


def _home() -> Path:
    """The folder of all mirrors."""
    return (cache_folder() / "mirrors").resolve()


def _id(store: Store) -> str:
    """What tells a store from all others, wherever it is reached.

    A new one gets it, and shows thereby that it has conditional writes.
    """
    try:
        content, _ = store.read(MARK)
    except Changed:
        store.below(MARK)  # refuses a bucket that is not there, which is no empty store
        with suppress(Changed):
            store.create(MARK, json.dumps({"id": secrets.token_hex(16)}).encode())
        content, _ = store.read(MARK)
    where, fix = f"{store.url}/{MARK}", "give another folder of the bucket"
    found: str = parse_json(content, where, _Mark, fix)["id"]
    if not _ID.fullmatch(found):
        raise InputError(f"{where}: found the id {found[:50]!r}, expected 32 hexadecimal digits; {fix}")
    return found


def _fix(record: str) -> str:
    return f"delete {record} there to have the step made again"
