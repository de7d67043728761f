"""One publisher at a time: a lock on the repository that the kernel gives back when its holder dies."""

import fcntl
import getpass
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from optkit.core.errors import MachineError
from optkit.registry import disk

LOCK = ".lock"
WAIT_S = 60.0
_POLL_S = 0.1
log = logging.getLogger(__name__)


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
    with disk.changing(repository, "lock it"):
        repository.mkdir(parents=True, exist_ok=True)
        # opened for appending: who holds it is not wiped out by those who wait
        file = (repository / LOCK).open("a+", encoding="utf-8")
    with file:
        _acquire(file, repository, wait_s)
        with disk.changing(repository, "lock it"):
            _sign(file, doing)
            disk.remove_unfinished(repository)
        yield


@contextmanager
def reading(repository: Path, wait_s: float = WAIT_S) -> Iterator[None]:
    """Have nobody change a repository meanwhile; others may read too. One that was never locked is just read.

    Raises:
        MachineError: somebody is changing it all the time.
    """
    try:
        file = (repository / LOCK).open(encoding="utf-8")
    except FileNotFoundError:
        yield
        return
    with file:
        _acquire(file, repository, wait_s, fcntl.LOCK_SH)
        yield


def who() -> str:
    """The person and the machine that do something, as `name@host`."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user id without an entry, as in containers
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def now() -> str:
    """The time, in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _acquire(file: TextIO, repository: Path, wait_s: float, kind: int = fcntl.LOCK_EX) -> None:
    deadline, told = time.monotonic() + wait_s, False
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pass
        if time.monotonic() >= deadline:
            raise MachineError(
                f"model repository {repository}: waited {wait_s:g} s, it is held by {_holder(file)}. Try again later, or "
                "end that process: the lock is free as soon as it is gone"
            )
        if not told:
            log.info("model repository %s is held by %s; waiting up to %g s", repository, _holder(file), wait_s)
            told = True
        time.sleep(_POLL_S)


def _sign(file: TextIO, doing: str) -> None:
    file.truncate(0)
    file.write(json.dumps({"who": who(), "process": os.getpid(), "doing": doing, "since": now()}) + "\n")
    file.flush()


def _holder(file: TextIO) -> str:
    file.seek(0)
    try:
        held = json.loads(file.read())
        return f"{held['who']}, process {held['process']}, since {held['since']} ({held['doing']})"
    except (ValueError, KeyError, TypeError):  # it has the lock and has not signed yet
        return "another process"
