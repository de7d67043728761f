"""Head of an HTTP request: parsed strictly, so that nobody behind the front can read it in another way."""

import re
from dataclasses import dataclass

LARGEST = 16 * 1024
"""Bytes of a head."""
_LINE = re.compile(rb"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.([01])")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*((?:[!-~\x80-\xff](?:[ \t]*[!-~\x80-\xff])*+)?)[ \t]*")
_NUMBER = re.compile(rb"[0-9]{1,15}")
_ONCE = frozenset(
    (b"host", b"origin", b"content-length", b"content-encoding", b"inference-header-content-length", b"optkit-secret")
)
"""Fields that decide something here; a second one is refused."""


class RefusedError(Exception):
    """A request that is answered by the front itself.

    Args:
        status: of the answer.
        reason: for the person who reads it.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Head:
    """What a request says before its body."""

    method: bytes
    target: bytes
    fields: dict[bytes, bytes]
    """Values by name in lower case; the last one of a name."""
    length: int
    """Bytes of the body."""
    json_length: int | None
    """Bytes of the JSON that the body starts with, where binary tensors follow."""
    keep_alive: bool

    def get(self, name: bytes) -> bytes:
        """Value of a field, empty if there is none."""
        return self.fields.get(name, b"")


def parse(text: bytes) -> Head:
    """Parse a request's head.

    Args:
        text: without the empty line behind it.

    Raises:
        RefusedError: it is no HTTP/1.0 or 1.1, or its body's length is not given by one Content-Length.
    """
    first, *lines = text.split(b"\r\n")
    request = _LINE.fullmatch(first)
    if request is None:
        raise RefusedError(400, "not a request of HTTP/1.1")
    fields = _fields(lines)
    if b"transfer-encoding" in fields:
        raise RefusedError(411, "Transfer-Encoding: expected a body with its Content-Length instead")
    length = _number(fields, b"content-length") or 0
    json_length = _number(fields, b"inference-header-content-length")
    keep_alive = request[3] == b"1" and b"close" not in fields.get(b"connection", b"").lower()
    return Head(request[1], request[2], fields, length, json_length, keep_alive)


def _fields(lines: list[bytes]) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise RefusedError(400, "a header field is not one of HTTP/1.1")
        name = field[1].lower()
        if name in fields and name in _ONCE:
            raise RefusedError(400, f"{name.decode()}: found twice")
        fields[name] = field[2]
    return fields


def _number(fields: dict[bytes, bytes], name: bytes) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if not _NUMBER.fullmatch(value):
        raise RefusedError(400, f"{name.decode()}: found no number of bytes")
    return int(value)
