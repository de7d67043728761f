"""Signatures of actions: person, machine and time, as records store them."""

import getpass
import os
import socket
from datetime import UTC, datetime


def who() -> str:
    """The person and the machine that do something, as `name@host`."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user id without an entry, as in containers
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def now() -> str:
    """The time, in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
