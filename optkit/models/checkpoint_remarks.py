"""The file in a checkpoint with what came of its stages that a reader of its results should know."""

from pathlib import Path

from optkit.core.atomic import write_json
from optkit.core.json_door import read_json

FILE = "remarks.json"


def write(folder: Path, remarks: list[str]) -> None:
    """Keep remarks beside a model; no file without any."""
    if remarks:
        write_json(folder / FILE, remarks)


def read(folder: Path) -> list[str]:
    """Read the remarks of a checkpoint, in order; none where there is no file.

    Raises:
        InputError: the file holds something else.
    """
    path = folder / FILE
    found: list[str] = read_json(path, list[str]) if path.is_file() else []
    return found
