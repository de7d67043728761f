"""Inference requests over one connection that stays open: a bare socket, as HTTP libraries take longer than small models."""

import json
import re
import socket
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import quote, urlsplit

from tritonclient.http import InferenceServerClient, InferInput, InferResult
from tritonclient.utils import InferenceServerException

from optkit.core.patience import TICK_S, Patience

T = TypeVar("T")
R = TypeVar("R")
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})")
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+) *\r\n", re.IGNORECASE)
_JSON_LENGTH = re.compile(rb"\r\ninference-header-content-length: *([0-9]+) *\r\n", re.IGNORECASE)
_CLOSED = re.compile(rb"\r\nconnection: *close *\r\n", re.IGNORECASE)
_LARGEST_HEAD = 64 * 1024
_PIECE = 256 * 1024
_BUSY = b" is not healthy."
"""End of what Triton says where a backend process has not had a processor for a second, or is dead."""
_PAUSES_S = (0.2, 1.0)
"""Pauses before it is asked again."""


class Wire:
    """One client's connection, opened by its first request.

    Args:
        url: `host:port` of the server's HTTP protocol.
        timeout_s: seconds for one request, its answer included.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        parts = urlsplit(f"//{url}")
        self._address = (parts.hostname or "", parts.port or 80)
        self._host = parts.netloc
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None

    def infer(self, model: str, inputs: Sequence[InferInput], version: str = "", request_id: str = "") -> InferResult:
        """Ask once.

        Args:
            model: its name.
            inputs: all tensors of the request.
            version: of the model; the server's choice if empty.
            request_id: comes back in the answer.

        Raises:
            InferenceServerException: another status than 200.
            TimeoutError: no answer in time.
            OSError: the connection failed.
            ValueError: an answer that no Triton gives.
        """
        body, json_length = InferenceServerClient.generate_request_body(inputs, request_id=request_id)
        versions = f"/versions/{version}" if version else ""
        head = (
            f"POST /v2/models/{quote(model)}{versions}/infer HTTP/1.1\r\nHost: {self._host}\r\n"
            f"Content-Length: {len(body)}\r\nInference-Header-Content-Length: {json_length or len(body)}\r\n\r\n"
        )
        request = head.encode() + body
        answer, content = self._exchange(request)
        for pause in _PAUSES_S:
            if not (answer[1] == b"500" and _BUSY in content):
                break
            time.sleep(pause)
            answer, content = self._exchange(request)
        status = int(answer[1])
        if status != HTTPStatus.OK:
            raise InferenceServerException(_reason(content), status=str(status))
        found = _JSON_LENGTH.search(answer.string)
        return InferResult.from_response_body(content, header_length=int(found[1]) if found else None)

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _exchange(self, request: bytes) -> tuple[re.Match[bytes], bytes]:
        """Match of the answer's status in its head, and its body; asked again where an idle connection had been closed."""
        patience, was_open = Patience(self._timeout_s), self._socket is not None
        try:
            try:
                return self._ask(request, patience)
            except (BrokenPipeError, ConnectionResetError, _NothingError):
                if not was_open:
                    raise
                self.close()
                return self._ask(request, patience)
        except BaseException:
            self.close()  # an answer may still come
            raise

    def _ask(self, request: bytes, patience: Patience) -> tuple[re.Match[bytes], bytes]:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, self._timeout_s)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.settimeout(min(TICK_S, self._timeout_s) / 4)
        rest = memoryview(request)
        while rest:
            rest = rest[_patiently(self._socket.send, rest, patience) :]
        data = _received(self._socket, bytearray(), patience)
        while (end := data.find(b"\r\n\r\n")) < 0 and len(data) < _LARGEST_HEAD:
            _received(self._socket, data, patience)
        head = bytes(data[: max(0, end) + 2])
        status, length = _STATUS.match(head), _LENGTH.search(head)
        if status is None or length is None:
            raise ValueError(f"found {bytes(data[:40])!r}, expected an answer by HTTP with a length")
        complete = end + 4 + int(length[1])
        while len(data) < complete:
            _received(self._socket, data, patience)
        if _CLOSED.search(head):
            self.close()
        return status, bytes(data[end + 4 : complete])


class _NothingError(ConnectionError):
    """The server closed the connection before it answered anything."""


def _received(connection: socket.socket, data: bytearray, patience: Patience) -> bytearray:
    """Add what has come of an answer."""
    piece = _patiently(connection.recv, _PIECE, patience)
    if not piece:
        raise _NothingError("closed before the answer") if not data else ConnectionError("closed in the middle of an answer")
    data += piece
    return data


def _patiently(call: Callable[[T], R], argument: T, patience: Patience) -> R:
    """Call a socket again and again until it has done something, or the time is over."""
    while not patience.is_over():
        try:
            return call(argument)
        except TimeoutError:
            pass  # of the socket, which looks more often
    raise TimeoutError


def _reason(content: bytes) -> str:
    """Say why a request was refused."""
    try:
        return str(json.loads(content)["error"])
    except (ValueError, LookupError, TypeError):
        return content.decode(errors="replace")
