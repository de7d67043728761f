"""Keeps the thread's alternate signal stack as it is while a library puts its own in its place."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = [("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Give the calling thread its alternate signal stack back when the block ends.

    OpenVINO's CPU plugin installs one per loaded copy, and hands it back when that copy goes: with two of them, or from
    another thread, the thread is left with one whose memory is gone, and the next Ctrl-C is a segmentation fault. None is
    needed: handlers then run on the thread's own stack.
    """
    libc, before = ctypes.CDLL(None), _Stack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)
