"""Threads that ask a server at the same time, each on a connection of its own."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import gevent

from optkit.serving.connection import Connection


class ClientThreads(ThreadPoolExecutor):
    """An executor whose threads close their own connections when its block ends.

    Args:
        client: what the submitted functions ask.
        count: of the threads.
    """

    def __init__(self, client: Connection, count: int) -> None:
        super().__init__(count)
        self._client = client
        self._all_idle = threading.Barrier(count)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Wait for all that was submitted; not after Ctrl-C, so that the server can be ended, and with it every request."""
        for _ in range(self._all_idle.parties):
            self.submit(self._leave)
        self.shutdown(wait=error is None or isinstance(error, Exception))

    def _leave(self) -> None:
        """Close what belongs to this thread; every thread comes here once, as it waits for the others."""
        self._all_idle.wait()
        self._client.close()
        gevent.get_hub().destroy()  # the thread's own event loop, which would keep four file descriptors open
