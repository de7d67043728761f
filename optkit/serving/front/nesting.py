"""Nesting of JSON, bounded before Triton's parser recurses into it."""

DEEPEST = 16
"""Nested arrays and objects; a request has about six."""
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ARRAYS = bytes.maketrans(b"{}", b"[]")


def too_deep(text: bytes | bytearray) -> bool:
    """Return whether arrays and objects are nested more than `DEEPEST` deep, or do not close.

    Takes linear time for any text: each pass removes the innermost pairs, and there are at most `DEEPEST` passes. Where a
    text is no JSON, what stands before its first mistake is judged rightly; parsers do not read further.
    """
    if text.count(b"[") + text.count(b"{") <= DEEPEST:
        return False
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")  # in this order: a quote behind "\\" ends its string
    brackets = b"".join(text.split(b'"')[::2]).translate(_ARRAYS, _NO_BRACKETS)
    for _ in range(DEEPEST):
        before = len(brackets)
        brackets = brackets.replace(b"[]", b"")
        if len(brackets) in (0, before):
            break
    return bool(brackets)
