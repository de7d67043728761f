"""Deadlines that a stopped process does not miss."""

import time

TICK_S = 1.0
"""The longest time between two looks that counts in full."""


class Patience:
    """Counts how long something is waited for, without the time that this process was stopped (SIGSTOP, Ctrl-Z, a debugger).

    Whoever waits looks more often than every `TICK_S`; where more has passed between two looks, this process did not run.

    Args:
        seconds: how long to wait.
    """

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._last = time.monotonic()

    def is_over(self) -> bool:
        """Whether the time is over; to be called again and again."""
        now = time.monotonic()
        self._left -= min(now - self._last, TICK_S)
        self._last = now
        return self._left <= 0
