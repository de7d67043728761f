"""All conversations together: how many there may be, how many bytes of requests, and how long they may take."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optkit.serving.front.relay import Conversation

MOST = 512
"""Connections of clients."""
MOST_BYTES = 256 * 2**20
"""Bytes of all requests under way."""


class Crowd:
    """Conversations of one front.

    Args:
        largest: bytes of a request's body, for which there is always room.
    """

    def __init__(self, largest: int) -> None:
        self.now = asyncio.get_running_loop().time
        self._all: set[Conversation] = set()
        self._idle: dict[Conversation, None] = {}
        """Those between requests, the one that waits longest first."""
        self._bytes, self._most_bytes = 0, max(MOST_BYTES, 3 * largest)

    def enter(self, one: Conversation) -> None:
        """Let one in, in the place of the one that is idle for longest where there are too many."""
        if len(self._all) >= MOST:
            if not self._idle:
                one.turn_away()
                return
            longest = next(iter(self._idle))
            self.leave(longest)
            longest.dismiss()
        self._all.add(one)
        self._idle[one] = None

    def leave(self, one: Conversation) -> None:
        """Forget one."""
        self.end(one)
        self._idle.pop(one, None)
        self._all.discard(one)

    def begin(self, one: Conversation) -> None:
        """Note that a request begins."""
        self._idle.pop(one, None)

    def end(self, one: Conversation) -> None:
        """Note that a request has ended."""
        self._bytes -= one.counted
        one.counted = 0
        self._idle[one] = None

    def count(self, one: Conversation, size: int) -> bool:
        """Count bytes of a request, and return whether there is room for them."""
        one.counted += size
        self._bytes += size
        return self._bytes <= self._most_bytes

    def sweep(self) -> None:
        """Dismiss those whose time is over."""
        now = self.now()
        for one in [one for one in self._all if one.deadline < now]:
            one.dismiss()
