"""Signals that ask a command to end: the first unwinds it, so that nothing is left behind; later ones let it finish that."""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from optkit.core.printable import say

ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
INTERRUPTED = {128 + number: number.name for number in ENDING}
"""How a command was ended, by its exit status."""
ONCE_S = 2.0
"""Signals that follow so soon are the same one: `timeout` and others send it to the process and again to its group."""
PATIENCE_S = 15.0
"""How long after the first signal others are ignored while the command unwinds; the next ends it as it is."""


class Ending:
    """What the signals do."""

    def __init__(self) -> None:
        self._first: BaseException | None = None
        self._since = 0.0
        self._over = False
        """Whether the command has ended, and the interpreter is left to end."""
        self._status: int | None = None

    def __call__(self, number: int, frame: object) -> None:
        """Raise what ends the command, unless it is ending already."""
        waited = time.monotonic() - self._since
        if self._first is None or not (self._over or waited < ONCE_S or _behind(sys.exception(), self._first)):
            self._first = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
            self._since = time.monotonic()
            raise self._first  # again where a library's callback has swallowed it
        if waited > PATIENCE_S:
            say("optkit: ended at once; what is left behind is removed by the next command")
            os._exit(128 + number)

    def leave(self, status: int) -> NoReturn:
        """End with a status. If a signal came, the process ends before its interpreter does.

        Threads of libraries, those of the load generator among them, do not learn of the signal: they would call an
        interpreter that is gone, and crash the process.
        """
        if self._first is not None:
            self._status = status
        sys.exit(status)

    @contextmanager
    def asked_for(self) -> Iterator[None]:
        """Have the signals unwind the block, so that nothing is left behind; after one, others let the process end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        atexit.register(self._at_exit)  # before the libraries, so that what they do at the end is done before
        ignored = [number for number in ENDING if signal.getsignal(number) is signal.SIG_IGN]  # as `nohup` has it
        before = {number: signal.signal(number, self) for number in ENDING if number not in ignored}
        try:
            yield
        finally:
            self._over = True
            if self._first is None:
                atexit.unregister(self._at_exit)
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _at_exit(self) -> None:
        if self._status is not None:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):  # a reader that has gone
                    stream.flush()
            os._exit(self._status)


def _behind(error: BaseException | None, first: BaseException) -> bool:
    """Whether an error is the first, or came of it."""
    while error is not None and error is not first:
        error = error.__context__
    return error is first
