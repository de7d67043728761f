"""A server's log: where it goes, and what it and the answers say about a failure, cut down to what a reader needs."""

import re
import tempfile
from pathlib import Path
from typing import TypedDict

from optkit.core.errors import InputError, MachineError
from optkit.core.json_door import parse_json

LINES = 20
_LONGEST = 2000  # characters of a server's reason
NOISE = re.compile(
    r"^\s*$|^I\d{4} |^[+|]|^ *\d+# "
    r"|CudaDriverHelper has not been initialized|NODELAY NOT SUPPORTED|unable to create stream"
)
"""Empty lines, information, tables, a crash's addresses, and what no GPU and a socket of Unix's kind bring forth."""


class _Refusal(TypedDict):
    error: str


def create(folder: Path) -> tuple[int, Path]:
    """A new log file that no other server writes to: its descriptor and its path.

    Raises:
        MachineError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, path = tempfile.mkstemp(prefix="tritonserver-", suffix=".log", dir=folder)
    except OSError as error:
        raise MachineError(
            f"Triton server: cannot write a log into {folder}: {error.strerror}. Choose a folder that can be written"
        ) from error
    return descriptor, Path(path)


def quote(log: Path, lines: int = LINES) -> str:
    """The last lines of a log, indented: warnings, errors and tracebacks if there are any, else whatever it says."""
    text = log.read_text(encoding="utf-8", errors="replace").splitlines()
    relevant = [line for line in text if not NOISE.search(line)] or text
    return "\n".join(f"  {line[:500]}" for line in relevant[-lines:]) or "  (nothing)"


def reason(body: bytes) -> str:
    """The error message in the JSON body of an answer."""
    try:
        found = str(parse_json(body, "the server", _Refusal)["error"])
    except InputError:
        found = body.decode(errors="replace")
    return found[:_LONGEST] or "(no reason given)"
