"""Connections to Triton: kept open between requests, closed in the middle of one whose client has gone."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, cast

from optkit.serving.front import unreadable

if TYPE_CHECKING:
    from optkit.serving.front.relay import Conversation

KEPT = 64
"""Idle connections."""
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_AWAY = "Triton has ended, or is starting. Ask again in a moment"


class Upstream(asyncio.Protocol):
    """One connection to Triton.

    Args:
        upstreams: which it goes back to.
    """

    def __init__(self, upstreams: Upstreams) -> None:
        self.answering = False
        """Whether a part of the answer has been passed on."""
        self._upstreams = upstreams
        self._conversation: Conversation | None = None
        self._head = b""
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, conversation: Conversation, request: bytes) -> None:
        """Send a request, or its beginning, whose answer goes to a conversation."""
        self._conversation = conversation
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Pass on an answer, or a part of one."""
        if self._conversation is None:
            self.transport.abort()
            return
        if not self.answering:
            data = self._head + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._head = data
                return
            length = _LENGTH.search(data, 0, end + 2)
            if length is None:
                self._fail(502, "Triton's answer has no length")
                return
            complete = end + 4 + int(length[1])
            if data.startswith(unreadable.FAILED) and len(data) < min(complete, end + 4 + unreadable.TOLD):
                self._head = data
                return
            self._head, self.answering, self._missing = b"", True, complete - len(data)
            data = unreadable.told(data)
        else:
            self._missing -= len(data)
        if not self._conversation.gone:
            self._conversation.transport.write(data)
        if self._missing <= 0:
            self._finish(self._conversation)

    def _finish(self, conversation: Conversation) -> None:
        self._conversation, self.answering = None, False
        self.transport.resume_reading()
        self._upstreams.take_back(self)
        conversation.answered()

    def pause_writing(self) -> None:
        """Keep the rest of a body with the client while Triton does not read."""
        if self._conversation is not None:
            self._conversation.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on with the body."""
        if self._conversation is not None:
            self._conversation.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the client that there is no answer."""
        self._upstreams.forget(self)
        self._fail(503, _AWAY)

    def _fail(self, status: int, reason: str) -> None:
        if self._conversation is not None:
            self._conversation.refuse(status, reason)

    def abort(self) -> None:
        """Close the connection in the middle of a request."""
        self._conversation = None
        self.transport.abort()


class Upstreams:
    """Connections to one of Triton's sockets.

    Args:
        path: of the socket.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._kept = KEPT
        self._idle: list[Upstream] = []
        self._opening: set[asyncio.Task[None]] = set()

    def give(self, conversation: Conversation) -> None:
        """Give a conversation a connection, now or as soon as it is open, or refuse it."""
        if not self._kept:
            conversation.refuse(503, _AWAY)
            return
        if self._idle:
            conversation.connected(self._idle.pop())
            return
        opening = asyncio.get_running_loop().create_task(self._open(conversation))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def _open(self, conversation: Conversation) -> None:
        try:
            _, upstream = await asyncio.get_running_loop().create_unix_connection(lambda: Upstream(self), self._path)
        except OSError:
            conversation.refuse(503, _AWAY)
        else:
            conversation.connected(upstream)

    def take_back(self, upstream: Upstream) -> None:
        """Keep a connection for the next request."""
        if len(self._idle) < self._kept and not upstream.transport.is_closing():
            self._idle.append(upstream)
        else:
            upstream.transport.close()

    def forget(self, upstream: Upstream) -> None:
        """Leave out a connection that is closed."""
        if upstream in self._idle:
            self._idle.remove(upstream)

    def drain(self) -> None:
        """Give no connection any more and close each when its answer has come: Triton waits for them before it ends."""
        self._kept = 0
        for upstream in self._idle:
            upstream.transport.close()
        self._idle.clear()
