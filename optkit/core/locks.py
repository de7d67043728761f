"""Locks on files, which the kernel releases when their holder dies; waiting processes log who holds them."""

import errno
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypedDict, cast

from optkit.core.errors import InputError, MachineError
from optkit.core.json_door import parse_json
from optkit.core.patience import Patience
from optkit.core.signature import now, who

_POLL_S = 0.1
_LONGEST = 10_000  # bytes of a signature
log = logging.getLogger(__name__)


class _Signature(TypedDict):
    who: str
    process: int
    since: str
    doing: str


@contextmanager
def exclusive(path: Path, name: str, doing: str, wait_s: float) -> Iterator[None]:
    """Hold a lock exclusively.

    Args:
        path: of its file, which is made if it does not exist.
        name: of what it protects, for messages.
        doing: said to those who wait, such as "publishing sst2_qat".
        wait_s: seconds to wait for others.

    Raises:
        InputError: the path is a symbolic link.
        MachineError: others hold it all the time.
        OSError: the file cannot be made or opened.
    """
    # opened for appending: who holds it is not wiped out by those who wait
    with _opened(path, "a+b", os.O_CREAT | os.O_APPEND | os.O_RDWR) as file:
        _acquire(file, fcntl.LOCK_EX, name, wait_s)
        _sign(file, doing)
        yield


@contextmanager
def shared(path: Path, name: str, wait_s: float) -> Iterator[None]:
    """Hold a lock shared with other readers, excluding exclusive holders; a lock file that does not exist is not created.

    Args and errors as of `exclusive`.
    """
    try:
        file = _opened(path, "rb", os.O_RDONLY)
    except FileNotFoundError:
        yield
        return
    with file:
        _acquire(file, fcntl.LOCK_SH, name, wait_s)
        yield


def _opened(path: Path, mode: str, flags: int) -> BinaryIO:
    """Open a lock's file itself: through a link, what lies elsewhere would be signed; a pipe would not open.

    Raises:
        InputError: the path is a symbolic link.
        OSError: the file cannot be made or opened.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"{path}: a symbolic link to {os.readlink(path)}; remove it") from error
        raise
    return cast(BinaryIO, os.fdopen(descriptor, mode, buffering=0))


def _acquire(file: BinaryIO, kind: int, name: str, wait_s: float) -> None:
    patience, told = Patience(wait_s), False
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pass
        if patience.is_over():
            raise MachineError(
                f"{name}: waited {wait_s:g} s, it is held by {_holder(file)}. Try again later, or end that process: the "
                "lock is free as soon as it is gone"
            )
        if not told:
            log.info("%s is held by %s; waiting up to %g s", name, _holder(file), wait_s)
            told = True
        time.sleep(_POLL_S)


def _sign(file: BinaryIO, doing: str) -> None:
    """Say who holds it; the lock holds without that too, as on a full disk."""
    signature = {"who": who(), "process": os.getpid(), "doing": doing, "since": now()}
    with suppress(OSError):
        file.truncate(0)
        file.write(json.dumps(signature).encode() + b"\n")


def _holder(file: BinaryIO) -> str:
    file.seek(0)
    try:
        held = parse_json(file.read(_LONGEST), "a lock", _Signature)
    except InputError:  # it has the lock and has not signed yet
        return "another process"
    return f"{held['who']}, process {held['process']}, since {held['since']} ({held['doing']})"
