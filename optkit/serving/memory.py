"""Memory of a server: its own and that of its backend processes."""

from collections import Counter

import psutil


def used_bytes(ancestor: int) -> int:
    """Memory of all processes below one; what several of them map of the same file counts once.

    Unlike a sum of PSS it does not fall when a process outside maps the same libraries.

    Args:
        ancestor: process id of their ancestor, which is not counted itself.
    """
    private, shared = 0, Counter[str]()
    for process in psutil.Process(ancestor).children(recursive=True):
        try:
            mapped = process.memory_maps(grouped=True)
        except psutil.NoSuchProcess:  # the backend of a model that has just been unloaded
            continue
        for one in mapped:
            private += one.private_clean + one.private_dirty
            shared[one.path] = max(shared[one.path], one.shared_clean + one.shared_dirty)
    return private + shared.total()
