"""Locks on a repository: waiting processes know the holder, and readers wait for publishers only."""

import logging
import threading
import time

import pytest

from optkit.core.errors import MachineError
from optkit.core.signature import who
from optkit.registry.disk import locked, reading


def test_who_waits_is_told_for_whom(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="optkit")
    held, done = threading.Event(), threading.Event()

    def hold():
        with locked(tmp_path, "publishing a"):
            held.set()
            done.wait(5)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(5)
    threading.Timer(0.3, done.set).start()
    started = time.monotonic()
    with locked(tmp_path, "publishing b"):
        assert time.monotonic() - started > 0.2
    holder.join()
    assert f"is held by {who()}, process " in caplog.text and "(publishing a); waiting up to 60 s" in caplog.text


def test_readers_share_and_writers_do_not(tmp_path):
    with locked(tmp_path, "making the file"):
        pass
    too_long = pytest.raises(MachineError, match=r"waited 0.1 s, it is held by .* \(\w+ .*\)")
    with reading(tmp_path), reading(tmp_path), too_long, locked(tmp_path, "changing it", wait_s=0.1):
        raise AssertionError("changed while it is read")
    with locked(tmp_path, "changing it"), too_long, reading(tmp_path, wait_s=0.1):
        raise AssertionError("read while it is changed")


def test_a_repository_that_was_never_locked_is_just_read(tmp_path):
    with reading(tmp_path):
        assert not list(tmp_path.iterdir())


def test_leftovers_of_the_dead_are_removed_and_nothing_else(tmp_path):
    (tmp_path / ".publishing-1" / "4").mkdir(parents=True)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / ".publishing-2-config.pbtxt").touch()
    (tmp_path / "m" / "config.pbtxt").touch()
    (tmp_path / ".publishing-link").symlink_to(tmp_path / "m")
    with locked(tmp_path, "tidying up"):
        assert sorted(path.name for path in tmp_path.rglob("*")) == [".lock", "config.pbtxt", "m"]
