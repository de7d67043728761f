"""An object store under a URL: what publishing needs of one, and its refusals in words."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from optkit.core.errors import InputError, MachineError

SCHEMES = ("s3", "gs", "az")
EXTRA = "pip install 'optkit[stores]'"


class Changed(Exception):
    """An object is not, or no longer, what the caller took it for."""


class Tag(NamedTuple):
    """Names one state of an object: it is another one after every write. Stores compare one or the other."""

    e_tag: str
    version: str | None


def is_url(repository: str) -> bool:
    """Whether a repository is one in an object store.

    Raises:
        InputError: a URL of a kind that is not known.
    """
    scheme, separator, _ = str(repository).partition("://")
    if separator and scheme not in SCHEMES:
        raise InputError(f"model repository {repository}: expected a folder, or a URL of {', '.join(SCHEMES)}")
    return bool(separator)


class Store:
    """The objects below a URL such as `s3://bucket/prefix`. Credentials and endpoint come from the environment.

    Raises:
        InputError: the URL names no bucket.
        MachineError: the package for object stores is missing.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            import obstore
            from obstore.store import from_url
        except ModuleNotFoundError as error:
            raise MachineError(f"model repository {url}: needs the package obstore. Install it: {EXTRA}") from error
        self._api: Any = obstore
        try:
            self._store: Any = from_url(self.url)
        except (obstore.exceptions.BaseError, ValueError) as error:
            raise InputError(f"model repository {url}: {_first_line(error)}. Expected s3://BUCKET/FOLDER") from error

    def names(self) -> dict[str, str]:
        """{name: what changes with its content} of every object.

        Raises:
            InputError: a name would lead out of a folder.
            MachineError: the store refuses, or is not there.
        """
        with self._talking("list"):
            found = {item["path"]: item["e_tag"] for batch in self._api.list(self._store) for item in batch}
        for name in found:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise InputError(f"model repository {self.url}: found an object {name!r}, which leads out of it. Remove it")
        return found

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
                raise MachineError(f"model repository {self.url}: cannot list: {_first_line(error)}") from error
            raise Changed(f"{self.url}: {what}: {_first_line(error)}") from error
        except errors.BaseError as error:
            raise MachineError(
                f"model repository {self.url}: cannot {what}: {_first_line(error)}. Are address and credentials in the "
                "environment (AWS_ENDPOINT, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)?"
            ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _tag(meta: Any) -> Tag:
    return Tag(meta["e_tag"], meta["version"])
