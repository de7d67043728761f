"""Conversations with clients: heads and JSON are checked, and then all is passed on to Triton as it comes."""

from __future__ import annotations

import asyncio
import json
import math
from enum import Enum, auto
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from optkit.serving.front import head
from optkit.serving.front.head import RefusedError
from optkit.serving.front.rules import Request, Rules
from optkit.serving.slots import Slots

if TYPE_CHECKING:
    from optkit.serving.front.crowd import Crowd
    from optkit.serving.front.upstream import Upstream, Upstreams

READ_AHEAD = 256 * 1024
"""Bytes that a client may send before they are asked for."""
FIRST_S, HEAD_S, IDLE_S, BODY_S, ANSWER_S, FAREWELL_S = 30.0, 10.0, 600.0, 60.0, 60.0, 5.0
"""Seconds for: a first request after connecting; a head once it has begun; the next request; a body; an answer that the
client does not read on; and a refusal."""
_BUSY = "found too many bytes of requests under way. Ask again later"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class State(Enum):
    """What a conversation waits for."""

    IDLE = auto()
    HEAD = auto()
    HELD = auto()  # the part of a body that is checked
    CONNECTION = auto()  # to Triton
    BODY = auto()  # the rest of it
    ANSWER = auto()
    FAREWELL = auto()  # that a client that was refused has read why


class Conversation(asyncio.Protocol):
    """One client's connection.

    Args:
        crowd: of all conversations.
        slots: of requests, which tell the backends that a client has gone.
        rules: that requests keep.
        upstreams: connections to Triton.
    """

    def __init__(self, crowd: Crowd, slots: Slots, rules: Rules, upstreams: Upstreams) -> None:
        self.deadline = math.inf
        self.counted = 0
        """Bytes of the request under way, for the crowd."""
        self.gone = False
        """Whether the client has closed the connection."""
        self._crowd, self._slots, self._rules, self._upstreams = crowd, slots, rules, upstreams
        self._buffer = bytearray()
        self._state = State.IDLE
        self._used = False
        self._request: Request | None = None
        self._content: bytes | bytearray = b""
        """What Triton gets of the body first."""
        self._missing = 0
        """Bytes of the body that have not come yet."""
        self._upstream: Upstream | None = None
        self._slot = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take part in the crowd."""
        self.transport = cast(asyncio.Transport, transport)
        self._wait(State.IDLE, FIRST_S)
        self._crowd.enter(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Let the backends know that nobody waits; what Triton holds of the request counts until it is answered."""
        self.gone = True
        if self._state is State.ANSWER and self._upstream is not None:
            self._slots.mark(self._slot)
            self._upstream.transport.resume_reading()
            self.deadline = math.inf
        else:
            self._leave()

    def _leave(self) -> None:
        self._state = State.FAREWELL
        self._leave_upstream()
        self._crowd.leave(self)

    def data_received(self, data: bytes) -> None:
        """Go on with a request."""
        if self._state is State.FAREWELL:
            return
        if self._state is State.BODY:
            self._pass_on(data)
        else:
            self._buffer += data
            if self._state in (State.IDLE, State.HEAD, State.HELD):
                self._advance()
            elif len(self._buffer) > READ_AHEAD:
                self.transport.pause_reading()
        if self._request is not None and not self._crowd.count(self, len(data)):
            self.refuse(429, _BUSY)

    def pause_writing(self) -> None:
        """Keep an answer in Triton that the client does not read."""
        if self._upstream is not None:
            self._upstream.transport.pause_reading()
        self.deadline = self._crowd.now() + ANSWER_S

    def resume_writing(self) -> None:
        """Go on with the answer."""
        if self._upstream is not None:
            self._upstream.transport.resume_reading()
            self.deadline = math.inf

    def _wait(self, state: State, seconds: float) -> None:
        self._state = state
        self.deadline = self._crowd.now() + seconds

    def _advance(self) -> None:
        try:
            if self._state is not State.HELD:
                self._read_head()
            if self._state is State.HELD and self._request is not None and len(self._buffer) >= self._request.held:
                self._check_body(self._request)
        except RefusedError as error:
            self.refuse(error.status, error.reason)

    def _read_head(self) -> None:
        if self._state is State.IDLE:
            self._crowd.begin(self)
            self._wait(State.HEAD, HEAD_S)
        end = self._buffer.find(b"\r\n\r\n", 0, head.LARGEST)
        if end < 0:
            if len(self._buffer) >= head.LARGEST:
                raise RefusedError(431, f"found a head of more than {head.LARGEST} bytes")
            return
        self._request = self._rules.request(bytes(self._buffer[:end]))
        del self._buffer[: end + 4]
        self._wait(State.HELD, BODY_S)
        if len(self._buffer) < self._request.head.length and b"expect" in self._request.head.fields:
            self.transport.write(_CONTINUE)

    def _check_body(self, request: Request) -> None:
        body = self._take(request.head.length)
        self._missing = request.head.length - len(body)
        self._content = self._rules.content(request, body)
        if not self._crowd.count(self, len(self._content) - len(body)):
            raise RefusedError(429, _BUSY)
        self._state = State.CONNECTION
        self._upstreams.give(self)

    def _take(self, most: int) -> bytearray:
        """Return the buffer's beginning and keep the rest."""
        taken, self._buffer = self._buffer, bytearray()
        if len(taken) > most:
            self._buffer += taken[most:]
            del taken[most:]
        return taken

    def connected(self, upstream: Upstream) -> None:
        """Send what has been checked, now that there is a connection."""
        if self._state is not State.CONNECTION or self._request is None:
            self._upstreams.take_back(upstream)  # the client has gone meanwhile
            return
        self._upstream = upstream
        length = len(self._content) + self._missing
        self.transport.resume_reading()
        self._slot = self._slots.take()
        upstream.ask(self, self._request.upstream % (self._slot, length) + self._content)
        self._content = b""
        self._state = State.BODY
        self._pass_on(self._take(self._missing))

    def _pass_on(self, data: bytes | bytearray) -> None:
        """Pass on what has come of the body."""
        if len(data) > self._missing:
            self._buffer += data[self._missing :]
            data = data[: self._missing]
        self._missing -= len(data)
        if data and self._upstream is not None:
            self._upstream.transport.write(data)
        if not self._missing:
            self._state, self.deadline = State.ANSWER, math.inf

    def answered(self) -> None:
        """Go on to the next request, now that all of an answer was written."""
        if self.gone:
            self._upstream = None
            self._leave()
            return
        complete = self._state is State.ANSWER and self._request is not None and self._request.head.keep_alive
        self._upstream = self._request = None
        self._crowd.end(self)
        self._wait(State.IDLE, IDLE_S)
        self._used = True
        if not complete:
            self.transport.close()
        elif self._buffer:
            self.transport.resume_reading()
            self._advance()

    def refuse(self, status: int, reason: str) -> None:
        """Answer a request here, and end the conversation; a client that is still sending can read why."""
        if self._state is State.FAREWELL:
            return
        if self.gone:
            self._leave()
            return
        if self._upstream is not None and self._upstream.answering:
            self._leave_upstream()
            self.transport.abort()
            return
        self._leave_upstream()
        self._buffer.clear()
        self.transport.resume_reading()
        self.transport.write(_answer(status, reason))
        self.transport.write_eof()
        self._wait(State.FAREWELL, FAREWELL_S)

    def dismiss(self) -> None:
        """End a conversation that takes too long, or has nothing to say while others wait."""
        if self._state is State.IDLE:
            if not self._used:  # else a client might take this for the answer to what it is about to send
                self.transport.write(_answer(408, "found no request"))
            self.transport.close()
            if self.transport.get_write_buffer_size():
                self.transport.abort()  # it does not read its last answer
        elif self._state in (State.ANSWER, State.FAREWELL):
            self.transport.abort()
        else:
            self.refuse(408, "the request did not come to its end in time")

    def turn_away(self) -> None:
        """Refuse to begin a conversation."""
        self._state = State.FAREWELL
        self.transport.write(_answer(429, "found too many connections. Ask again later"))
        self.transport.close()

    def _leave_upstream(self) -> None:
        if self._upstream is not None:
            self._upstream.abort()
            self._upstream = None


def _answer(status: int, reason: str) -> bytes:
    body = json.dumps({"error": reason}).encode()
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *(["Retry-After: 1"] if status in (429, 503) else []),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
