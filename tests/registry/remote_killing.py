"""A publisher into an object store, in a process of its own, that is killed just before its n-th write."""

import itertools
import os
import signal
import tempfile

from optkit.core.object_store import Store
from optkit.registry import remote
from optkit.registry.disk import locked
from optkit.registry.release import place
from optkit.registry.rollback import prune, rollback
from tests.forked import LAUNCHER

from . import small
from .conftest import trusting


def publish(url, release, wait_s=20.0):
    with remote.changing(url, "publishing", wait_s) as folder, locked(folder, "test"):
        return place(folder, release, trusting).name


def go_back(url, release, wait_s=20.0):
    with remote.changing(url, "rolling back", wait_s) as folder:
        return rollback(folder, small.MODEL)


def remove_old(url, release, wait_s=20.0):
    with remote.changing(url, "pruning", wait_s) as folder:
        return prune(folder, small.MODEL, keep=1)


def die_in_the_download(url, release):
    """Be killed with the repository downloaded and nothing changed yet."""
    with remote.changing(url, "publishing"):
        os.kill(os.getpid(), signal.SIGKILL)


def killed_at(step, work, url, release):
    """Do `work` and kill it before its step (None: it does so itself); False when it ended before, well."""
    process = LAUNCHER.Process(target=_run, args=(step, work, url, release, dict(os.environ)))
    process.start()
    process.join(120)
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return process.exitcode != 0


def _run(step, work, url, release, environment):
    os.environ.update(environment)
    tempfile.tempdir = None  # which its parent may have looked for before
    writes = itertools.count()
    for name in ("put", "swap", "delete"):
        setattr(Store, name, _deadly(getattr(Store, name), writes, step))
    work(url, release)


def _deadly(method, writes, step):
    def call(*arguments):
        if next(writes) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*arguments)

    return call
