"""The folder for what is made once on a machine and used by all projects."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/optkit`, by default `~/.cache/optkit`; it may not exist yet.

    Raises:
        RuntimeError: there is no home folder.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "optkit"
