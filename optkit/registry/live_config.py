"""`config.pbtxt` of a model: that of the live version, below a line that names the entry of the history that made it live.

The line is a comment for Triton. It shows a history whose end was cut off, and an entry whose change was not made.
"""

import re
from pathlib import Path

from optkit.registry import layout
from optkit.registry.layout import CONFIG
from optkit.serving import config as configuration

_LINE = "# live by entry {} of history.jsonl\n"
_NAMED = re.compile(_LINE.format("([0-9a-f]{64})").encode())


def content(version: Path, entry: str | None) -> bytes:
    """What the model's file has to be while a version is live.

    Args:
        version: its folder, which has the rest of the file; one that an older optkit published has not.
        entry: SHA-256 of the entry; None where an older optkit wrote it.

    Raises:
        InputError: the version's record is broken.
    """
    own = version / CONFIG
    rest = own.read_bytes() if own.is_file() else configuration.write(layout.config_of(version, int(version.name))).encode()
    return (_LINE.format(entry).encode() if entry else b"") + rest


def entry(model: Path) -> str | None:
    """SHA-256 of the entry that a model's file names, if it names one."""
    found = _NAMED.match((model / CONFIG).read_bytes())
    return found[1].decode() if found else None
