"""Temporary files and folders that carry their owner, so that whoever comes next removes what a killed one left.

An owner keeps the thing itself locked. The kernel ends that lock with the owner's process, however it dies, and shows it to
every process on this machine, whatever container it is in; process ids and host names would not tell. A lock may not be seen
from another machine that has the same volume mounted: the name says where a thing was made, by the kernel's boot id, and
what was made elsewhere is left until it has not changed for `UNKNOWN_S`.
"""

import fcntl
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNKNOWN_S = 7 * 24 * 3600.0
"""How long that is left whose owner may live on another machine, or of which a log was kept, since its last change."""
KEPT = ".kept"
UNFINISHED = "unfinished"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TAG = r"[0-9a-f]{8}-[0-9a-f]{8}"
_OURS = re.compile(rf"optkit-[a-z]+-{_TAG}")
_WITHIN = re.compile(rf"\..*(\.{UNFINISHED}-(\d+|{_TAG})|-{_TAG})")
"""Hidden beside what they will be; before version 0.2 a process id stood there."""


@contextmanager
def folder(prefix: str, parent: Path | None = None, keep_after: type[BaseException] | tuple[()] = ()) -> Iterator[Path]:
    """A new folder that is deleted with the block; what dead owners left beside it under the same prefix is deleted first.

    Args:
        prefix: of its name; hidden beside the user's files, else `optkit-` and a word, and for this user's eyes alone.
        parent: where it is made; the folder for temporary files if None.
        keep_after: an error after which it is kept for `UNKNOWN_S`, as its message names a log in it.

    Raises:
        OSError: it cannot be made.
    """
    place = Path(tempfile.gettempdir()) if parent is None else parent
    mode = 0o777 if prefix.startswith(".") else 0o700  # what is hidden lies among the user's own files, or becomes one
    sweep(place, prefix)
    path, held = _made(place / prefix, lambda new: new.mkdir(mode))
    kept = False
    try:
        yield path
    except keep_after:
        if kept := any(path.iterdir()):
            (path / KEPT).touch()
        raise
    finally:
        if not kept:
            shutil.rmtree(path, ignore_errors=True)
        os.close(held)


@contextmanager
def file(path: Path) -> Iterator[Path]:
    """A new file beside `path`, to be written and renamed; it is deleted with the block if it is still there.

    Raises:
        OSError: it cannot be made.
    """
    prefix = f".{path.name}.{UNFINISHED}"
    sweep(path.parent, prefix)
    new, held = _made(path.with_name(prefix), lambda new: new.touch(exist_ok=False))
    try:
        yield new
    finally:
        with suppress(OSError):  # a disk that cannot be written has nothing to be removed
            new.unlink()
        os.close(held)


def sweep(parent: Path, prefix: str = "", first: Callable[[Path], object] = lambda path: None) -> None:
    """Delete what dead owners left in a folder.

    Args:
        parent: the folder.
        prefix: of the names to look at, as it was made with; everything of optkit's own if empty.
        first: what is done about each before it is deleted.
    """
    names = os.listdir(parent) if parent.is_dir() else []
    for name in names:
        if name.startswith(prefix) and (_OURS.fullmatch(name) or _WITHIN.fullmatch(name)):
            _remove_if_abandoned(parent / name, first)


def sweep_tree(top: Path) -> None:
    """Delete what dead owners left in a folder and all below."""
    for place, folders, _ in os.walk(top):
        sweep(Path(place))
        folders[:] = [name for name in folders if not _WITHIN.fullmatch(name)]


def _made(prefix: Path, make: Callable[[Path], None]) -> tuple[Path, int]:
    """Make it under a name of its own and lock it; returns its path and the descriptor that holds the lock."""
    while True:
        path = prefix.with_name(f"{prefix.name}-{_boot()}-{secrets.token_hex(4)}")
        make(path)
        with suppress(FileNotFoundError):  # another process took it for abandoned before it was locked
            descriptor = _opened(path)
            with suppress(OSError):  # a file system without locks, where nothing is ever taken for abandoned
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            if path.exists():
                return path, descriptor
            os.close(descriptor)


def _opened(path: Path) -> int:
    """A descriptor to lock; a file's can be written, as NFS demands."""
    try:
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except IsADirectoryError:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)


def _remove_if_abandoned(path: Path, first: Callable[[Path], object]) -> None:
    try:
        descriptor = _opened(path)
    except OSError:  # gone meanwhile, a link, or another user's
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _was_made_here(path) or _is_old(path):
            first(path)
            _remove(path)
    except OSError:  # its owner lives
        pass
    finally:
        os.close(descriptor)


def _was_made_here(path: Path) -> bool:
    return path.name.split("-")[-2] == _boot() and not (path / KEPT).exists()


def _is_old(path: Path) -> bool:
    changed = max(each.lstat().st_mtime for each in (path, *path.rglob("*")))
    return time.time() - changed > UNKNOWN_S


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def _boot() -> str:
    """Which run of which machine's kernel this is."""
    return _BOOT_ID.read_text(encoding="ascii")[:8]
