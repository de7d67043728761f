"""Shapes of the tensors in a request's JSON, bounded before Triton makes room for them.

Triton 2.51 allocates what a shape asks for, times the size of a value, without looking at an overflow.
"""

import re

_SHAPE = re.compile(rb'"shape"\s*+:\s*+(?:\[\s*+((?:[0-9]{1,15}\s*+,\s*+)*+[0-9]{1,15})\s*+\])?')
_HIDDEN = re.compile(rb"\\u00(?:73|68|61|70|65)")
"""A letter of "shape" in a form that no library writes."""


def within(text: bytes | bytearray, most: int) -> bool:
    """Return whether all shapes are lists of numbers, and have at most so many values together.

    Args:
        text: of the JSON.
        most: values, of which each takes a byte of the request or more.
    """
    if b"\\u00" in text and _HIDDEN.search(text.replace(b"\\\\", b"")):
        return False
    for shape in _SHAPE.finditer(text):
        if shape[1] is None:
            return False
        values = 1
        for size in shape[1].split(b","):
            values *= int(size)
            if values > most:
                return False
        most -= values
    return True
