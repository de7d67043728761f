"""Files of engines whose matrices share their blocks, stored small: a byte for each block, and a table of the blocks (see
`optkit.models.block_codes`). They are expanded in memory, to the same bytes, when an engine is loaded.

`model.bin` becomes `model.bin.npz`, arrays that NumPy reads: `codes<n>` and `blocks<n>` of each matrix, `places`
[matrices, 2] (where it began, and whether it lay as [in, out]), `rest`, all other bytes in their order, and `length`, the
number of bytes.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from optkit.core.errors import InputError
from optkit.models import block_codes

PACKED = ".npz"
"""What the name of a packed file adds to that of the file."""
_WORTH = 0.75
"""Largest share of a file's bytes for which it is packed."""
_BYTES = (1, 2, 4)
"""Bytes of a number."""


class Place(NamedTuple):
    """Where a matrix lies in a file."""

    offset: int
    """First byte."""
    shape: tuple[int, ...]
    length: int
    """Bytes."""


def pack(path: Path, places: Iterable[Place]) -> None:
    """Replace a file by a packed one beside it, unless that would save less than a quarter.

    Args:
        path: the file.
        places: of matrices in it, [out, in] or [in, out]; others are passed over.
    """
    content = np.fromfile(path, np.uint8)
    found, arrays, rest, end = list[tuple[int, bool]](), dict[str, NDArray[Any]](), list[NDArray[np.uint8]](), 0
    for place in sorted(set(places)):
        coded, transposed = _coded(content, place) if place.offset >= end else (None, False)
        if coded is not None:
            arrays |= {f"codes{len(found)}": coded.codes, f"blocks{len(found)}": coded.blocks}
            found.append((place.offset, transposed))
            rest.append(content[end : place.offset])
            end = place.offset + place.length
    rest.append(content[end:])
    if sum(array.nbytes for array in (*arrays.values(), *rest)) <= _WORTH * len(content):
        with path.with_name(path.name + PACKED).open("wb") as file:
            places, length = np.array(found, np.int64), np.array(len(content))
            np.savez(file, places=places, rest=np.concatenate(rest), length=length, **arrays)
        path.unlink()


def is_packed(path: Path) -> bool:
    """Return whether a file is stored packed, under its name and `PACKED`."""
    return not path.exists() and path.with_name(path.name + PACKED).is_file()


def expanded(path: Path) -> NDArray[np.uint8]:
    """Return the bytes of a file that is stored packed.

    Raises:
        InputError: the packed file is damaged.
    """
    packed = path.with_name(path.name + PACKED)
    try:
        with np.load(packed) as arrays:
            return np.concatenate(list(_parts(arrays)))
    except Exception as error:  # damage makes NumPy and zipfile raise some ten kinds of errors
        raise InputError(f"{packed}: cannot be expanded ({error}); build the engine again") from error


def copy(path: Path, target: Path) -> None:
    """Write a file that is stored packed to a path, as it was."""
    expanded(path).tofile(target)


def evidence(path: Path) -> dict[str, Any]:
    """Return `expanded_bytes`, the size in memory of a file that is stored packed; nothing of one that is not."""
    return {"expanded_bytes": len(expanded(path))} if is_packed(path) else {}


def _coded(content: NDArray[np.uint8], place: Place) -> tuple[block_codes.Coded | None, bool]:
    """Return the codes of a matrix, and whether it lies as [in, out]."""
    size = place.length // max(1, int(np.prod(place.shape)))
    if len(place.shape) != 2 or size not in _BYTES or size * int(np.prod(place.shape)) != place.length:
        return None, False
    # a copy begins where numbers of its size may
    matrix = content[place.offset : place.offset + place.length].copy().view(f"u{size}").reshape(place.shape)
    found = block_codes.find(matrix)
    return (found, False) if found is not None else (block_codes.find(matrix.T), True)


def _parts(arrays: Any) -> Iterable[NDArray[np.uint8]]:
    """Yield the bytes of a file from its arrays, part by part."""
    rest, done, end = arrays["rest"], 0, 0
    for number, (offset, transposed) in enumerate(arrays["places"].tolist()):
        before = offset - end
        if not 0 <= before <= len(rest) - done:
            raise ValueError(
                f"matrix {number} begins at byte {offset}, after {end} and within {len(rest) - done} others expected"
            )
        yield rest[done : done + before]
        matrix = block_codes.expand(arrays[f"codes{number}"], arrays[f"blocks{number}"])
        yield np.ascontiguousarray(matrix.T if transposed else matrix).view(np.uint8).reshape(-1)
        done, end = done + before, offset + matrix.nbytes
    yield rest[done:]
    length = end + len(rest) - done
    if "length" in arrays and length != arrays["length"]:  # earlier files do not say it
        raise ValueError(f"{length:,} bytes, {arrays['length']:,} expected")
