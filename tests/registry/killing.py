"""A publisher in a process of its own that is killed just before its n-th change of a repository, or request."""

import itertools
import os
import signal
import sys

from optkit.core.templates import template
from optkit.registry import live_server
from optkit.registry.disk import locked
from optkit.registry.live_server import Running
from optkit.registry.release import place
from optkit.registry.rollback import prune, rollback
from tests.forked import LAUNCHER

from . import small
from .conftest import trusting

OPERATIONS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate")
_INTERRUPTED = 130
template("optkit.registry", "model_card.md.jinja")  # compiled once, and not by each process


def publish(root, release, url=None):
    server = Running(url) if url else None
    with locked(root, "test", wait_s=5):
        if server:
            server.require()
        place(root, release, trusting, server)


def go_back(root, release, url=None):
    rollback(root, small.MODEL, url=url)


def remove_old(root, release, url=None):
    prune(root, small.MODEL, keep=1)


def together(count, work, *arguments):
    """Do `work` in several processes at once."""
    processes = [LAUNCHER.Process(target=work, args=arguments) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * count


def killed_at(step, event, work, *arguments):
    """Do `work` and kill it before its step; False when it ended before, well."""
    process = LAUNCHER.Process(target=_run, args=(step, event, work, arguments))
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return process.exitcode != 0


def interrupted_at(step, event, work, *arguments):
    """Do `work` in a process of its own and press Ctrl-C before its step; False when it ended before, well."""
    process = LAUNCHER.Process(target=_run_interrupted, args=(step, event, work, arguments))
    process.start()
    process.join(60)
    assert process.exitcode in (0, _INTERRUPTED), process.exitcode
    return process.exitcode != 0


def _run_interrupted(step, event, work, arguments):
    seen = itertools.count()

    def watch(name, details):
        if name == event and next(seen) == step:
            raise KeyboardInterrupt

    sys.addaudithook(watch)
    try:
        work(*arguments)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _run(step, event, work, arguments):
    root = os.fspath(arguments[0])
    seen = itertools.count()

    def watch(name, details):
        if name == "open" and not details[2] & (os.O_WRONLY | os.O_RDWR):
            return  # what is only read leaves the disk as it was
        if event == "file" and name in OPERATIONS:
            hit = any(isinstance(detail, str | os.PathLike) and os.fspath(detail).startswith(root) for detail in details)
        else:
            hit = event == name
        if hit and next(seen) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    live_server._POLL_S = 1.5  # else most requests would be one: whether the trial, which takes a second, is unloaded
    work(*arguments)
