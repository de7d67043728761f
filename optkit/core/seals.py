"""Files that tell of finished steps, such as a result: their SHA-256 is kept in the record of the folder they lie in.

`record.json` has `sealed`: {file: {SHA-256: key of the step that it tells of}}. Two entries of a file mean that its writer
was interrupted between them: either is right.
"""

import hashlib
from pathlib import Path

from optkit.core.atomic import file_hash, write_json, write_text
from optkit.core.errors import InputError
from optkit.core.json_door import checked
from optkit.core.step_cache import RECORD, read_record

SEALED = "sealed"


def write(path: Path, text: str, of: str) -> None:
    """Write a file into a finished step's folder, and its SHA-256 into the step's record; nothing where both are there.

    Args:
        path: the file.
        text: its content.
        of: key of the step that it tells of.

    Raises:
        InputError: the folder's record is broken.
        MachineError: it cannot be written.
    """
    known, new = _known(path), {hashlib.sha256(text.encode()).hexdigest(): of}
    if known == new and path.is_file() and file_hash(path) in new:
        return
    _note(path, {**known, **new})
    write_text(path, text)
    _note(path, new)


def told_of(path: Path) -> str | None:
    """The key of the step that a file tells of; None where it was written without its SHA-256, as older versions did.

    Raises:
        InputError: it changed after it was written.
    """
    if not (known := _known(path)):
        return None
    if (found := file_hash(path) if path.is_file() else "no file's") not in known:
        raise InputError(
            f"{path}: SHA-256 is {found[:16]}, {RECORD} says {list(known)[-1][:16]}: the file changed after it was written. "
            "Run the recipe again, which writes it anew"
        )
    return known[found]


def _known(path: Path) -> dict[str, str]:
    found = read_record(path.parent).get(SEALED, {})
    kind, fix = dict[str, dict[str, str]], "run the recipe again, which writes it anew"
    known: dict[str, str] = checked(found, kind, f"{path.parent / RECORD}: {SEALED}", fix).get(path.name, {})
    return known


def _note(path: Path, hashes: dict[str, str]) -> None:
    record = read_record(path.parent)
    write_json(path.parent / RECORD, {**record, SEALED: {**record.get(SEALED, {}), path.name: hashes}})
