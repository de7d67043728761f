"""What publishing does to a disk: one at a time, everything is flushed, and takes its place by one rename."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

from optkit.core import locks
from optkit.core.atomic import flush, refusal_behind, remedy
from optkit.core.errors import MachineError

LOCK = ".lock"
WAIT_S = 60.0
UNFINISHED = ".publishing-"
"""Begins the names of what a publisher is at work on; servers and readers pass over them."""


@contextmanager
def changing(repository: Path, what: str) -> Iterator[None]:
    """Turn the disk's refusals into an error that says what could not be done.

    Raises:
        MachineError: the disk is full, read-only or fails.
    """
    try:
        yield
    except OSError as error:
        # shutil reports several at once, and their reasons alone
        reason = error.args[0][0][2] if isinstance(error, shutil.Error) else f"{error.strerror} ({error.filename})"
        fix = remedy(refusal_behind(error) or error)
        raise MachineError(
            f"model repository {repository}: cannot {what}: {reason}. What is published stays as it was. {fix}"
        ) from error


@contextmanager
def locked(repository: Path, doing: str, wait_s: float = WAIT_S) -> Iterator[None]:
    """Be the only one to change a repository; what dead publishers have left behind is removed first.

    Args:
        repository: its folder; made if it does not exist.
        doing: said to those who wait, such as "publishing sst2_qat".
        wait_s: seconds to wait for another publisher.

    Raises:
        MachineError: another one holds the lock all the time, or the repository cannot be written.
    """
    with ExitStack() as held:
        with changing(repository, "lock it"):
            repository.mkdir(parents=True, exist_ok=True)
            held.enter_context(locks.exclusive(repository / LOCK, f"model repository {repository}", doing, wait_s))
            remove_unfinished(repository)
        yield


def reading(repository: Path, wait_s: float = WAIT_S) -> AbstractContextManager[None]:
    """Hold a repository's lock shared with other readers, excluding publishers; one that was never locked is just read.

    Raises:
        MachineError: somebody is changing it all the time.
    """
    return locks.shared(repository / LOCK, f"model repository {repository}", wait_s)


@contextmanager
def staging(repository: Path) -> Iterator[Path]:
    """The name of a folder, not made yet, on the repository's file system; whatever is there at the end is removed."""
    folder = repository / f"{UNFINISHED}{uuid4().hex[:12]}"
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove(folder: Path, repository: Path) -> None:
    """Make a folder somewhere in a repository vanish at once, and delete its files then."""
    gone = repository / f"{UNFINISHED}{uuid4().hex[:12]}"
    os.rename(folder, gone)
    flush(folder.parent)
    shutil.rmtree(gone)


def remove_unfinished(repository: Path) -> None:
    """Delete what publishers that are gone were at work on; for the holder of the lock alone."""
    for path in [*repository.glob(f"{UNFINISHED}*"), *repository.glob(f"[!.]*/{UNFINISHED}*")]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def replace(path: Path, content: str | bytes) -> None:
    """Write a file that is seen as it was or as it will be, also after a power cut."""
    with prepared(path, content) as put_in_place:
        put_in_place()


@contextmanager
def prepared(path: Path, content: str | bytes) -> Iterator[Callable[[], None]]:
    """A file written and flushed under another name, so that putting it in its place needs no space on the disk."""
    unfinished = path.with_name(f"{UNFINISHED}{uuid4().hex[:12]}-{path.name}")

    def put_in_place() -> None:
        os.replace(unfinished, path)
        flush(path.parent)

    try:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
        flush(unfinished)
        yield put_in_place
    finally:
        unfinished.unlink(missing_ok=True)
