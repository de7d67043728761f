"""One publisher at a time on an object store: an object that its holder renews, and that others take when it does not.

No clocks are compared: whoever waits takes over when the object has not changed for `LEASE_S` of its own time. All writes
of it are conditional, so that of two who take over one wins.
"""

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TypedDict

from optkit.core.errors import InputError, MachineError
from optkit.core.json_door import parse_json
from optkit.core.object_store import Changed, Store, Tag
from optkit.core.signature import now, who

NAME = ".lock"
LEASE_S = 30.0
_POLL_S = 0.5
log = logging.getLogger(__name__)


class _Signature(TypedDict):
    by: str
    doing: str
    at: str


class Lease:
    """A held lease."""

    def __init__(self, store: Store, doing: str, tag: Tag) -> None:
        self.store, self.doing, self.tag = store, doing, tag
        self._turn = threading.Lock()
        self._done = threading.Event()
        self._renewals = 0

    def renew(self) -> None:
        """Show the others that the holder is alive.

        Raises:
            MachineError: another one has taken over, or the store is gone.
        """
        with self._turn:
            self._renewals += 1
            try:
                self.tag = self.store.swap(NAME, _text(self.doing, self._renewals), self.tag)
            except Changed as error:
                raise MachineError(
                    f"model repository {self.store.url}: another publisher has taken over, as this one did not show itself "
                    "for too long. Nothing went live; run the command again"
                ) from error

    def keep(self) -> None:
        """Renew until `end`; what fails shows when the holder renews itself, before anything goes live."""
        while not self._done.wait(LEASE_S / 4):
            with suppress(MachineError):
                self.renew()

    def end(self) -> None:
        """Give it back, unless it is another's."""
        self._done.set()
        with suppress(MachineError, Changed):
            self.renew()
            self.store.delete([NAME])


@contextmanager
def leased(store: Store, doing: str, wait_s: float) -> Iterator[Lease]:
    """Be the only one to change a repository in a store.

    Args:
        store: of the repository.
        doing: said to those who wait.
        wait_s: seconds to wait for another publisher.

    Raises:
        MachineError: another one holds it all the time, or the store cannot keep two publishers apart.
    """
    lease = Lease(store, doing, _acquire(store, doing, wait_s))
    keeper = threading.Thread(target=lease.keep, daemon=True)
    keeper.start()
    try:
        yield lease
    finally:
        lease.end()
        keeper.join()


def _acquire(store: Store, doing: str, wait_s: float) -> Tag:
    started = since = time.monotonic()
    seen: Tag | None = None
    while True:
        with suppress(Changed):
            return store.create(NAME, _text(doing))
        try:
            content, tag = store.read(NAME)
        except Changed:  # given back a moment ago
            continue
        if tag != seen:
            seen, since = tag, time.monotonic()
        if time.monotonic() - since > LEASE_S:
            log.warning("model repository %s: taken over from a publisher that is gone: %s", store.url, _holder(content))
            with suppress(Changed):
                return store.swap(NAME, _text(doing), tag)
        if time.monotonic() - started > wait_s:
            raise MachineError(
                f"model repository {store.url}: is being changed for {wait_s:g} s already by {_holder(content)}. Wait, or "
                "give more time with --wait"
            )
        time.sleep(_POLL_S)


def _text(doing: str, renewals: int = 0) -> bytes:
    return json.dumps({"by": who(), "at": now(), "doing": doing, "renewals": renewals}).encode()


def _holder(content: bytes) -> str:
    try:
        found = parse_json(content, NAME, _Signature)
    except InputError:
        return "somebody unknown"
    return f"{found['by']} ({found['doing']}, since {found['at']})"
