"""The one door for JSON, from files, requests and answers: bounded in size, depth and digits, and of the types expected.

What a type is, is said by annotations: `str`, `list[int]`, `tuple[float, float]`, `dict[str, int | None]`, a `Literal`, a
`TypedDict` (which may have more names than it states) or a dataclass (which may not, and may lack those with defaults).
"""

import json
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from optkit.core.errors import InputError, OptkitError

LARGEST = 256 * 2**20
"""Bytes of a file or an answer; nothing that optkit writes comes near."""
DEPTH = 64
"""Levels of objects and arrays within each other."""
DIGITS = 40
"""Digits of a whole number; transformers writes 10³⁰ for a tokenizer without a limit."""
_FIX = "delete it to have it made again"
_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}
_NAMES |= {list: "an array", tuple: "an array", dict: "an object", Mapping: "an object"}


def read_json(path: Path, kind: Any = Any, fix: str = _FIX, largest: int = LARGEST) -> Any:
    """Read a JSON file.

    Args:
        path: of the file.
        kind: annotation that the content has to fit.
        fix: what to do about a wrong file, the end of the message.
        largest: most bytes it may have.

    Raises:
        InputError: no such file, something else than a file, too large, or not such JSON.
    """
    return parse_json(read_bytes(path, fix, largest), path, kind, fix)


def parse_json(
    text: str | bytes, where: object, kind: Any = Any, fix: str = _FIX, error: type[OptkitError] = InputError
) -> Any:
    """Parse a JSON text.

    Args:
        text: of one value, in UTF-8 if it is bytes.
        where: what it is, the begin of the message: a path, a line of a file, a server.
        kind: annotation that the value has to fit.
        fix: what to do about it, the end of the message.
        error: what is raised.

    Raises:
        OptkitError: `error`: not JSON, deeper than `DEPTH`, a number of more than `DIGITS` digits, a name twice in an
            object, half of a surrogate pair, or another type.
    """
    try:
        value = loads(text)
    except ValueError as found:
        raise error(f"{where}: not JSON ({found}); {fix}") from found
    return checked(value, kind, where, fix, error)


def loads(text: str | bytes) -> Any:
    """Parse a JSON text within the limits.

    Raises:
        ValueError: as of `parse_json`, without its place.
    """
    decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    try:
        value = json.loads(decoded, parse_int=_whole, object_pairs_hook=_object)
        if decoded.count("[") + decoded.count("{") > DEPTH or "\\u" in decoded or not encodable(decoded):
            _check(value)
    except RecursionError:
        raise ValueError(f"more than {DEPTH} levels of brackets") from None
    return value


def checked(value: Any, kind: Any, where: object, fix: str = _FIX, error: type[OptkitError] = InputError) -> Any:
    """Return a JSON value that fits an annotation.

    Args and errors as of `parse_json`.
    """
    try:
        _fit(value, kind, "")
    except _Misfit as found:
        raise error(f"{where}: {found}; {fix}") from None
    return value


def read_bytes(path: Path, fix: str = _FIX, largest: int = LARGEST) -> bytes:
    """Read a file whole.

    Raises:
        InputError: no such file, something else than a file, such as a folder or a pipe, or too large.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: found {'a folder' if path.is_dir() else 'no regular file'}, expected a file; {fix}")
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}; {fix}") from error
    if len(content) > largest:
        raise InputError(f"{path}: has {path.stat().st_size:,} bytes, expected at most {largest:,}; {fix}")
    return content


class _Misfit(ValueError):
    """A value of another type than expected."""


def _whole(digits: str) -> int:
    if len(digits) > DIGITS + 1:  # a sign may stand before them
        raise ValueError(f"a number of {len(digits):,} digits, expected at most {DIGITS}")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the name {twice[:60]!r} twice in an object")
    return made


def _check(value: Any) -> None:
    """Raise for what lies too deep, and for text that UTF-8 cannot hold."""
    waiting = [(value, 1, "the text")]
    while waiting:
        part, depth, name = waiting.pop()
        if isinstance(part, str):
            if not part.isascii() and not encodable(part):
                raise ValueError(f"half of a surrogate pair in {name[:60]!r}: {part[:60]!r}")
        elif isinstance(part, dict | list):
            if depth > DEPTH:
                raise RecursionError
            pairs = part.items() if isinstance(part, dict) else ((name, one) for one in part)
            waiting += [(one, depth + 1, own) for own, one in pairs]
            waiting += [(own, depth + 1, own) for own in part if isinstance(part, dict)]


def encodable(text: str) -> bool:
    """Return whether a text consists of whole characters, so that UTF-8 can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fit(value: Any, kind: Any, at: str) -> None:
    """Raise `_Misfit` unless a value fits an annotation.

    Args:
        value: as `json.loads` gives it.
        kind: annotation.
        at: its place in the whole, such as `.files.config`.
    """
    base, inside = get_origin(kind) or kind, get_args(kind)
    if base in (Union, UnionType):
        _fit_any(value, inside, at)
    elif base is Literal:
        if value not in inside:
            raise _Misfit(f"{_place(at)} is {_shown(value)}, expected {' or '.join(map(str, inside))}")
    elif is_typeddict(base) or is_dataclass(base):
        _fit_fields(value, base, at)
    elif base is not Any:
        _fit_plain(value, base, inside, at)


def _fit_any(value: Any, kinds: tuple[Any, ...], at: str) -> None:
    if value is None and NoneType in kinds:
        return None
    misfits = []
    for kind in kinds:
        try:
            return _fit(value, kind, at)
        except _Misfit as error:
            misfits.append(error)
    raise misfits[0]


def _fit_fields(value: Any, kind: Any, at: str) -> None:
    _fit_plain(value, dict, (), at)
    hints = get_type_hints(kind)
    if is_dataclass(kind):
        needed = {own.name for own in fields(kind) if own.default is MISSING and own.default_factory is MISSING}
        unknown = sorted(value.keys() - hints.keys())
    else:
        needed, unknown = kind.__required_keys__, []
    if missing := sorted(needed - value.keys()):
        raise _Misfit(f"{_place(at)} lacks {', '.join(missing)}")
    if unknown:
        raise _Misfit(f"{_place(at)} has {', '.join(unknown)[:200]}, which no such record has")
    for name in hints.keys() & value.keys():
        _fit(value[name], hints[name], f"{at}.{name}")


def _fit_plain(value: Any, base: Any, inside: tuple[Any, ...], at: str) -> None:
    accepts = {float: (int, float), tuple: (list,), Mapping: (dict,)}.get(base, (base,))
    if not isinstance(value, accepts) or (isinstance(value, bool) and base is not bool):
        raise _Misfit(f"{_place(at)} is {_shown(value)}, expected {_NAMES[base]}")
    if inside and isinstance(value, dict):
        for name, part in value.items():
            _fit(name, inside[0], f"{at}, a name in it")
            _fit(part, inside[1], f"{at}.{name}")
    elif inside and isinstance(value, list):
        kinds = inside[:1] * len(value) if base is list or inside[-1] is ... else inside
        if len(value) != len(kinds):
            raise _Misfit(f"{_place(at)} has {len(value)} entries, expected {len(kinds)}")
        for index, (part, kind) in enumerate(zip(value, kinds, strict=True)):
            _fit(part, kind, f"{at}[{index}]")


def _place(at: str) -> str:
    return at.removeprefix(".")[:200] or "the whole"


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return _NAMES[type(value)]
    return json.dumps(value)[:60]
