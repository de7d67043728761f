"""Damage for property tests: odd values in the place of good ones, and bytes that are missing, changed or doubled."""

import json
from typing import Any

from hypothesis import strategies as st

from optkit.core.errors import OptkitError

_PLACE = "the place of the odd value"
_TEXTS = st.text(max_size=10)
_ODD_TEXTS = ["", " ", "nan", "-inf", "01", "1.0", "=1+1", "\x1b[2J", "\x00", "\ud800", "../x", "/", "a" * 5000]
_ODD_NUMBERS = [0, -1, 0.5, 2**31, 2**63, 10**39, 10**41, 1e308, float("nan"), float("inf")]
_ODD_JSON = ["9" * 5000, "[" * 9999, "[" * 100 + "]" * 100, '{"a": 1, "a": 2}', "1e999", ""]
_PIECES = [b"", b"\xef\xbb\xbf", b"\xff", b"\x00", b'"', b"\n", b",", b"[" * 9999, b"9" * 5000]

texts = st.sampled_from(_ODD_TEXTS) | _TEXTS
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(_ODD_NUMBERS) | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3))


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes with a few places left out, doubled or replaced."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = start + draw(st.integers(0, 20))
        piece = draw(st.sampled_from([*_PIECES, content[start:end] * 2]) | st.binary(max_size=8))
        content = content[:start] + piece + content[end:]
    return content


@st.composite
def misfits(draw: st.DrawFn, content: Any) -> bytes:
    """JSON with one value replaced by an odd one, anywhere."""
    place = draw(_places(content))
    odd = draw(st.sampled_from(_ODD_JSON) | values.map(json.dumps))
    return json.dumps(_replaced(content, place)).replace(json.dumps(_PLACE), odd).encode()


def is_told(error: OptkitError, *names: object) -> bool:
    """Whether an error ends a command with status 2 or 3, and its message names one of the files."""
    return error.exit_status in (2, 3) and any(str(name) in str(error) for name in names)


@st.composite
def _places(draw: st.DrawFn, content: Any) -> tuple[Any, ...]:
    """Keys that lead to a value, as often near the top as far below."""
    inside = dict(content) if isinstance(content, dict) else dict(enumerate(content)) if isinstance(content, list) else {}
    if not inside or draw(st.integers(0, 3)) == 0:
        return ()
    key = draw(st.sampled_from(list(inside)))
    return key, *draw(_places(inside[key]))


def _replaced(content: Any, place: tuple[Any, ...]) -> Any:
    if not place:
        return _PLACE
    made = dict(content) if isinstance(content, dict) else list(content)
    made[place[0]] = _replaced(made[place[0]], place[1:])
    return made
