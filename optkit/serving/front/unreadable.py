"""Answers of Triton to requests that it cannot read: it says 500 where the mistake is the client's."""

import re

FAILED = b"HTTP/1.1 500 "
TOLD = 64
"""Bytes of an answer's body that say whose mistake it is."""
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request"
_READING = (
    rb"Unable to (?:parse|set) |[Ff]ailed to parse (?:the request|'data')|failed to get request params|attempt to access "
)
_UNREADABLE = re.compile(rb'[^\r]*((?:\r\n[^\r]+)+\r\n\r\n\{"error":"(?:' + _READING + rb"))")


def told(answer: bytes) -> bytes:
    """Return the beginning of an answer, with status 400 in the place of 500 where the request's JSON could not be read.

    These messages begin as only those of Triton's reader do: what a model says of itself begins with its own words.

    Args:
        answer: with its head and `TOLD` bytes of its body, or all of it.
    """
    if not answer.startswith(FAILED) or (match := _UNREADABLE.match(answer)) is None:
        return answer
    return _BAD_REQUEST + answer[match.start(1) :]
