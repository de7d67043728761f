"""Files that appear whole or not at all: written beside their place, flushed and renamed; and what they hold, by SHA-256."""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from optkit.core import temporary
from optkit.core.errors import InputError, MachineError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REMEDIES = {
    **dict.fromkeys(_FULL, "Free some space or give another folder"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "Change the rights of the folder, or give another one"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR), "Make the folder first, or give another one"),
    errno.EROFS: "Its disk is mounted to be read only: mount it otherwise, or give another folder",
}
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a part."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old file or the new one, never a part.

    Raises:
        InputError: the place is a folder.
        MachineError: it cannot be written.
    """
    if path.is_dir():
        raise InputError(f"{path}: cannot be written: found a folder. Give the name of a file")
    try:
        with temporary.file(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
            os.replace(unfinished, path)
    except OSError as error:
        raise disk_error(path, error) from error


def flush_tree(folder: Path) -> None:
    """Flush all files and folders below, and the folder itself, to the disk."""
    for path in folder.rglob("*"):
        flush(path)
    flush(folder)


def flush(path: Path) -> None:
    """Flush one file, or the names in one folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def empty(folder: Path) -> None:
    """Remove all that lies in a folder."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in files}


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refusal_behind(error: BaseException | None) -> OSError | None:
    """The disk's refusal behind an error, also where a library wrapped it in an error of its own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            return error
        for code in (*_FULL, errno.EROFS):
            if os.strerror(code) in str(error):
                return OSError(code, os.strerror(code))
        error = error.__cause__ or error.__context__
    return None


def disk_error(path: Path, error: OSError) -> MachineError:
    """The error for a file or folder that the disk refuses to write, ready to be raised."""
    said = error.strerror or str(error)
    if error.errno in _FULL:
        place = path.parent if path.parent.exists() else Path.cwd()
        said += f" ({shutil.disk_usage(place).free / 1e6:.0f} MB free)"
    return MachineError(f"{path}: cannot be written: {said}; nothing was left half-written. {remedy(error)}")


def remedy(error: OSError) -> str:
    """What to do about a disk's refusal, as a sentence."""
    return _REMEDIES.get(error.errno or 0, "Give another folder")
