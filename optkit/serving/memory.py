"""Memory of a server: its own and that of its backend processes."""

import psutil


def pss_bytes(ancestor: int) -> int:
    """Memory that all processes below one have to themselves (PSS: what several share counts in shares).

    Args:
        ancestor: process id of their ancestor, which is not counted itself.
    """
    found = 0
    for process in psutil.Process(ancestor).children(recursive=True):
        try:
            found += process.memory_full_info().pss
        except psutil.NoSuchProcess:  # the backend of a model that has just been unloaded
            continue
    return found
