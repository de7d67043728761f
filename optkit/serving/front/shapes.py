"""Shapes of the tensors in a request's JSON, bounded before Triton makes room for them.

Triton 2.51 allocates what a shape asks for, times the size of a value, without looking at an overflow.
"""

import re

_SHAPE = re.compile(rb'"shape"\s*+:\s*+(?:\[\s*+((?:[0-9]{1,15}\s*+,\s*+)*+[0-9]{1,15})\s*+\])?')
_HIDDEN = re.compile(rb"\\u00(?:73|68|61|70|65)")
"""A letter of "shape" in a form that no library writes."""
_LONGEST = 40
_VALUE = re.compile(rb"\[[^\]]{0,%d}\]?|[^\s,}]{1,%d}" % (_LONGEST, _LONGEST))
"""What stands where a shape is expected, or how it begins."""


def fault(text: bytes | bytearray, most: int) -> str | None:
    """Say why a request's shapes cannot be served; None where all are lists of numbers, and not of too many values together.

    Args:
        text: of the JSON.
        most: values, of which each takes a byte of the request or more.
    """
    if b"\\u00" in text and _HIDDEN.search(text.replace(b"\\\\", b"")):
        return 'found "shape" with escaped letters, expected it as it is'
    left = most
    for shape in _SHAPE.finditer(text):
        if shape[1] is None:
            found = _VALUE.match(text, shape.end())
            shown = found[0].decode(errors="replace") if found else "nothing"
            return f"found {shown}, expected a list of whole numbers that are not negative, such as [1, 16]"
        values = 1
        for size in shape[1].split(b","):
            values *= int(size)
            if values > left:
                shown = shape[1][:_LONGEST].decode()
                return f"found [{shown}], expected at most {most} values, as many as the request has bytes"
        left -= values
    return None
