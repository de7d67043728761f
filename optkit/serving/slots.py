"""Slots of requests under way: a byte each in memory that the front and the backends share, 1 where the client has gone.

Triton's HTTP (2.51) does not see that a client goes while its request is computed, so that it cancels nothing.
"""

import mmap
import os
from pathlib import Path

HEADER = "optkit-slot"
"""Header with the number of a request's slot, which Triton hands on as a parameter."""
FILE = "slots"
VARIABLE = "OPTKIT_SLOTS"
"""Variable that names the file to the backends."""
COUNT = 2**16


class Slots:
    """Slots in a file.

    Args:
        path: of the file; made if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(descriptor, COUNT)
            self._bytes = mmap.mmap(descriptor, COUNT)
        finally:
            os.close(descriptor)
        self._last = 0

    def take(self) -> int:
        """Return a slot for a new request."""
        self._last = (self._last + 1) % COUNT
        self._bytes[self._last] = 0
        return self._last

    def mark(self, slot: int) -> None:
        """Note that the request's client has gone."""
        self._bytes[slot] = 1

    def marked(self, slot: int) -> bool:
        """Whether its client has gone."""
        return self._bytes[slot] == 1
