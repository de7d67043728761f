"""What the front lets through: which requests are open to all, whom it believes, how large a body may be."""

import hmac
import re
import zlib
from dataclasses import dataclass
from functools import lru_cache

from optkit.serving import slots
from optkit.serving.front import head as heads
from optkit.serving.front import shapes
from optkit.serving.front.head import Head, RefusedError
from optkit.serving.front.nesting import DEEPEST, too_deep
from optkit.serving.ticket import HEADER

_MODEL = rb"/v2/models/(?!stats\Z)\.?[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/versions/[0-9]+)?"
INFERENCE = re.compile(
    rb"GET (?:/v2(?:/health/(?:live|ready))?|" + _MODEL + rb"(?:/ready|/config)?)|POST " + _MODEL + rb"/infer"
)
METRICS = re.compile(rb"GET /metrics")
_HOST = re.compile(rb"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
_FORWARDED = (b"inference-header-content-length", b"accept-encoding")
_COMPRESSED = (b"gzip", b"deflate")
_HEADS = 128


@dataclass(frozen=True, slots=True)
class Request:
    """A request that may pass."""

    head: Head
    compressed: bool
    held: int
    """Bytes of the body that are checked before anything is passed on: the JSON, or all of a compressed body."""
    upstream: bytes
    """Head that Triton gets, written anew, to be filled in: number of the slot, length of the body."""


class Rules:
    """Rules of one listener.

    Args:
        everybody: matches `METHOD target` of the requests that need no secret.
        secret: of this server; all other requests need it.
        largest: bytes of a body, before and after decompression.
    """

    def __init__(self, everybody: re.Pattern[bytes], secret: str, largest: int) -> None:
        self._everybody = everybody
        self._secret = secret.encode()
        self._largest = largest
        self.request = lru_cache(_HEADS)(self._request)  # clients repeat their heads

    def _request(self, text: bytes) -> Request:
        """Return the request that starts with this head.

        Raises:
            RefusedError: it may not pass.
        """
        head = heads.parse(text)
        self._check_sender(head)
        if head.length > self._largest:
            raise RefusedError(413, f"Content-Length: found {head.length}, expected at most {self._largest} bytes")
        encoding = head.fields.get(b"content-encoding", b"identity").lower()
        if encoding not in (b"identity", *_COMPRESSED):
            raise RefusedError(415, "Content-Encoding: expected gzip, deflate or none")
        compressed = encoding in _COMPRESSED
        held = head.length if compressed or head.json_length is None else head.json_length
        if held > head.length:
            raise RefusedError(400, f"Inference-Header-Content-Length: found {held}, expected at most {head.length}")
        return Request(head, compressed, held, _upstream(head))

    def _check_sender(self, head: Head) -> None:
        by_page = head.fields.get(b"sec-fetch-site", b"none") != b"none"
        if by_page or b"origin" in head.fields or not _HOST.fullmatch(head.fields.get(b"host", b"localhost")):
            raise RefusedError(403, "expected no Origin, and the Host 127.0.0.1 or localhost: web pages are not answered")
        if head.method not in (b"GET", b"POST"):
            raise RefusedError(405, "expected GET or POST")
        known = hmac.compare_digest(head.fields.get(HEADER.lower().encode(), b""), self._secret)
        if not known and not self._everybody.fullmatch(head.method + b" " + head.target):
            raise RefusedError(
                403, f"no request for inference; others need the server's secret, which goes into the header {HEADER}"
            )

    def content(self, request: Request, body: bytearray) -> bytes | bytearray:
        """Return what is passed on of a body's first `held` bytes, unpacked and checked.

        Raises:
            RefusedError: its JSON is nested too deep or has shapes larger than it; or it cannot be unpacked, or to too much.
        """
        content = _unpacked(body, self._largest) if request.compressed else body
        length = request.head.json_length
        json = content if length is None else content[:length]
        if too_deep(json):
            raise RefusedError(400, f"JSON: found more than {DEEPEST} arrays and objects in each other, or unclosed ones")
        values = len(content) if request.compressed else request.head.length
        if wrong := shapes.fault(json, values):
            raise RefusedError(400, f"shape: {wrong}")
        return content


def _upstream(head: Head) -> bytes:
    lines = [b"%s %s HTTP/1.1" % (head.method, head.target), b"Host: localhost"]
    lines += [b"%s: %s" % (name, head.fields[name]) for name in _FORWARDED if name in head.fields]
    known = b"\r\n".join(lines).replace(b"%", b"%%")
    return b"%s\r\n%s: %%d\r\nContent-Length: %%d\r\n\r\n" % (known, slots.HEADER.encode())


def _unpacked(body: bytearray, largest: int) -> bytes:
    """Decompress gzip or zlib, whichever it is."""
    decompressor = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        content = decompressor.decompress(body, largest + 1)
    except zlib.error as error:
        raise RefusedError(400, f"Content-Encoding: {error}") from error
    if len(content) > largest:
        raise RefusedError(413, f"found a body that unpacks to more than {largest} bytes")
    if not decompressor.eof or decompressor.unused_data:
        raise RefusedError(400, "Content-Encoding: found a body that ends too early or too late")
    return content
