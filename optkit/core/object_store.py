"""An object store under a URL: what model repositories and checkpoints need of one, and its refusals in words."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from optkit.core.errors import InputError, MachineError

SCHEMES = ("s3", "gs", "az")
_LONGEST = 255  # bytes of a part of a path
EXTRA = "pip install 'optkit[stores]'"
REPOSITORY = "model repository"


class Changed(Exception):
    """An object is not, or no longer, what the caller took it for."""


class Tag(NamedTuple):
    """Names one state of an object: it is another one after every write. Stores compare one or the other."""

    e_tag: str
    version: str | None


def is_url(place: str, what: str = REPOSITORY) -> bool:
    """Whether a place is one in an object store.

    Args:
        place: a folder or a URL.
        what: lies there, for messages.

    Raises:
        InputError: a URL of a kind that is not known.
    """
    scheme, separator, _ = str(place).partition("://")
    if separator and scheme not in SCHEMES:
        raise InputError(f"{what} {place}: expected a folder, or a URL of {', '.join(SCHEMES)}")
    return bool(separator)


class Store:
    """The objects below a URL such as `s3://bucket/prefix`. Credentials and endpoint come from the environment.

    Args:
        url: of the place.
        what: lies there, for messages.

    Raises:
        InputError: the URL names no bucket.
        MachineError: the package for object stores is missing.
    """

    def __init__(self, url: str, what: str = REPOSITORY) -> None:
        self.url = url.rstrip("/")
        self.name = f"{what} {self.url}"
        self.strange: dict[str, str] = {}
        """Objects that `names` left out, with the reason."""
        self.lost: set[str] = set()
        """Folders that could not be listed because of such a name in them."""
        try:
            import obstore
            from obstore.store import from_url
        except ModuleNotFoundError as error:
            raise MachineError(f"{self.name}: needs the package obstore. Install it: {EXTRA}") from error
        self._api: Any = obstore
        try:
            self._store: Any = from_url(self.url)
        except (obstore.exceptions.BaseError, ValueError) as error:
            raise InputError(f"{self.name}: {_first_line(error)}. Expected s3://BUCKET/FOLDER") from error

    def names(self) -> dict[str, str]:
        """{name: what changes with its content} of every object that a folder can hold; the others are in `strange`.

        Raises:
            InputError: a name keeps all others from being listed.
            MachineError: the store refuses, or is not there.
        """
        self.strange, self.lost = {}, set()
        with self._talking("list"):
            found = {item["path"]: item for item in self._listed(None)}
        if "" in self.lost:
            raise InputError(f"{self.name}: {'; '.join(self.strange.values())}, and keeps it from being listed")
        folders = {str(folder) for name in found for folder in PurePosixPath(name).parents}
        for name in folders.intersection(found):  # one without content is how consoles show an empty folder
            if found.pop(name)["size"]:
                self._put_aside(name, "stands where a folder is")
        for name in [name for name in found if any(len(part.encode()) > _LONGEST for part in name.split("/"))]:
            del found[name]
            self._put_aside(name, f"has a name that no file can have, of over {_LONGEST} bytes")
        return {name: item["e_tag"] for name, item in found.items()}

    def _listed(self, folder: str | None) -> Iterator[Any]:
        """Yield the objects below a folder, around those whose names obstore refuses: it then lists none beside them.

        Names of models, versions and files begin with a letter, a digit or `_`, which come after `.` and `/`.
        """
        for offset in (None, f"{folder}/0" if folder else "0"):
            try:
                yield from [item for batch in self._api.list(self._store, folder, offset=offset) for item in batch]
                return
            except self._api.exceptions.InvalidPathError as error:
                self._refused(error)
        try:
            level = self._api.list_with_delimiter(self._store, folder)
        except self._api.exceptions.InvalidPathError as error:
            self._refused(error)
            self.lost.add(folder or "")
            return
        yield from level["objects"]
        for below in level["common_prefixes"]:
            yield from self._listed(below)

    def _refused(self, error: Exception) -> None:
        match = re.search(r'Path "(.*?)"', str(error))
        self._put_aside(match[1] if match else _first_line(error), "has a name that no file can have")

    def _put_aside(self, name: str, why: str) -> None:
        self.strange[name] = f"the object {name[:300]!r} {why}"

    def get(self, name: str, target: Path) -> Tag:
        """Write an object to a file; returns its tag.

        Raises:
            Changed: it is gone.
            MachineError: as `names` does.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._talking(f"read {name}"), target.open("wb") as file:
            answer = self._api.get(self._store, name)
            for chunk in answer.stream():
                file.write(chunk)
            return _tag(answer.meta)

    def read(self, name: str) -> tuple[bytes, Tag]:
        """Content and tag of a small object.

        Raises:
            As `get` does.
        """
        with self._talking(f"read {name}"):
            answer = self._api.get(self._store, name)
            return bytes(answer.bytes()), _tag(answer.meta)

    def put(self, name: str, content: Path) -> None:
        """Write a file to an object, whatever was there. A reader sees the old one or the new one.

        Raises:
            MachineError: as `names` does.
        """
        with self._talking(f"write {name}"):
            self._api.put(self._store, name, content)

    def swap(self, name: str, content: bytes, tag: Tag | None) -> Tag:
        """Write an object if it still has a tag, or if there is none yet (`tag` None); returns the new tag.

        Raises:
            Changed: it has another tag, or is there, or is gone.
            MachineError: as `names` does, or the store cannot do this.
        """
        mode: Any = "create" if tag is None else {name: value for name, value in tag._asdict().items() if value}
        with self._talking(f"write {name}"):
            return _tag(self._api.put(self._store, name, content, mode=mode, use_multipart=False))

    def create(self, name: str, content: bytes) -> Tag:
        """Write an object that is not there, and make sure that a second one would have been refused; returns its tag.

        Raises:
            Changed: there is one.
            MachineError: as `names` does, or the store writes over it all the same.
        """
        tag = self.swap(name, content, None)
        try:
            self.swap(name, content, None)
        except Changed:
            return tag
        self.delete([name])
        raise MachineError(
            f"{self.name}: the store ignores conditional writes, so that two writers would write over each other. Give a "
            "folder, or a store that has them (If-None-Match and If-Match)"
        )

    def has(self, name: str) -> bool:
        """Whether an object is there.

        Raises:
            MachineError: as `names` does.
        """
        try:
            with self._talking(f"look for {name}"):
                self._api.head(self._store, name)
        except Changed:
            return False
        return True

    def below(self, folder: str) -> list[str]:
        """Names of the objects in a folder and all below.

        Raises:
            MachineError: as `names` does.
        """
        with self._talking("list"):
            return [item["path"] for batch in self._api.list(self._store, folder) for item in batch]

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects.

        Raises:
            MachineError: as `names` does.
        """
        if names:
            with self._talking(f"delete {names[0]}"):
                self._api.delete(self._store, list(names))

    @contextmanager
    def _talking(self, what: str) -> Iterator[None]:
        errors = self._api.exceptions
        try:
            yield
        except (errors.AlreadyExistsError, errors.PreconditionError, errors.NotFoundError, FileNotFoundError) as error:
            if what == "list":  # a bucket that is not there
                raise MachineError(f"{self.name}: cannot list: {_first_line(error)}") from error
            raise Changed(f"{self.url}: {what}: {_first_line(error)}") from error
        except errors.BaseError as error:
            raise MachineError(
                f"{self.name}: cannot {what}: {_first_line(error)}. Are address and credentials in the "
                "environment (AWS_ENDPOINT, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)?"
            ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _tag(meta: Any) -> Tag:
    return Tag(meta["e_tag"], meta["version"])
