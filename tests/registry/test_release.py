"""A version is placed whole or not at all: killed at any step, with a full disk, read-only, or two at a time."""

import itertools
import json
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from optkit.core.errors import GateError, InputError, MachineError
from optkit.registry import disk, history, layout, listing, verify
from optkit.registry.disk import locked
from optkit.registry.release import place
from optkit.registry.rollback import prune, rollback
from optkit.serving import repository as repositories

from . import killing, small
from .conftest import trusting

pytestmark = pytest.mark.slow


def unfinished(root):
    return [path for path in root.rglob("*") if disk.UNFINISHED in str(path)]


def publish(root, release, check=trusting):
    with locked(root, "test", wait_s=5):
        return place(root, release, check)


def state(root):
    """Every file of a repository with its content, but not the lock's."""
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name[0] != "."
    }


def test_a_first_and_a_next_version(tmp_path, releases):
    root = tmp_path / "repository"
    assert publish(root, releases[0]) == root / small.MODEL / "1"
    assert publish(root, releases[1]) == root / small.MODEL / "2"
    assert layout.live(root / small.MODEL) == 2
    assert [event["version"] for event in history.read(root / small.MODEL)] == [1, 2]
    assert (root / small.MODEL / "README.md").read_text().startswith(f"# {small.MODEL}, version 2\n")
    assert verify.verify(root) == [] and not unfinished(root)


def test_the_old_versions_files_are_not_touched(model, releases):
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (model / "2").rglob("*")}
    publish(model.parent, releases[3])
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (model / "2").rglob("*")} == before


def test_a_check_that_says_no_leaves_the_repository_as_it_was(repository, releases):
    def refuse(staged):
        assert (staged / "4" / "engine" / "engine.json").is_file()
        raise GateError("it answers nonsense")

    before = state(repository)
    with pytest.raises(GateError, match="nonsense"):
        publish(repository, releases[3], refuse)
    assert state(repository) == before and not unfinished(repository)


def test_a_number_is_not_given_twice(model, releases):
    rollback(model.parent, small.MODEL, to=1)
    prune(model.parent, small.MODEL, keep=1)
    assert repositories.versions(model) == (1, 3)
    rollback(model.parent, small.MODEL, to=3)
    shutil.rmtree(model / "1")
    assert publish(model.parent, releases[3]).name == "4"
    assert [event["event"] for event in history.read(model)][-3:] == ["rollback", "prune", "publish"]


@pytest.mark.parametrize("work", [killing.publish, killing.go_back, killing.remove_old])
def test_killed_at_every_step(work, published, releases, tmp_path):
    """Whatever step it is killed at, old or new is live and whole, and the next publisher goes on from there."""
    seen = set()
    for step in itertools.count():
        root = shutil.copytree(published, tmp_path / str(step))
        killed = killing.killed_at(step, "file", work, root, releases[3])
        assert verify.verify(root) == [], step
        live = layout.live(root / small.MODEL)
        versions = repositories.versions(root / small.MODEL)
        assert live in versions and [each.version for each in listing.versions(root) if each.live] == [live]
        seen.add((live, versions))
        again = publish(root, releases[2])
        assert int(again.name) in (4, 5) and layout.live(root / small.MODEL) == int(again.name)
        assert verify.verify(root) == [] and not unfinished(root), step
        assert history.went_live(root / small.MODEL)[:3] == [1, 2, 3]
        shutil.rmtree(root)
        if not killed:
            break
    assert step > 10
    assert {live for live, _ in seen} == {killing.publish: {3, 4}, killing.go_back: {3, 2}, killing.remove_old: {3}}[work]


def test_a_first_publish_killed_at_every_step(releases, tmp_path):
    for step in itertools.count():
        root = tmp_path / str(step)
        root.mkdir()
        killed = killing.killed_at(step, "file", killing.publish, root, releases[0])
        assert verify.verify(root) == []
        assert repositories.models(root) in ({}, {small.MODEL: (1,)}), step
        again = publish(root, releases[1])
        assert int(again.name) in (1, 2) and verify.verify(root) == [] and not unfinished(root)
        if not killed:
            break
    assert step > 10


@pytest.fixture
def mount(tmp_path):
    """Mounts file systems, where that is allowed."""
    mounted = []

    def do(*arguments):
        folder = tmp_path / f"mounted-{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"needs the right to mount a file system: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield do
    for folder in reversed(mounted):
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_at_every_fill_leaves_what_was_there(mount, releases):
    """Disk space from none at all, page by page, to enough: nothing or all of the version, and no leftovers."""
    root = mount("-t", "tmpfs", "-o", "size=512k", "tmpfs") / "repository"
    publish(root, releases[0])
    before, filler, failures = state(root), root.parent / "filler", 0
    for pages in range(200):
        filler.write_bytes(b"")
        free = shutil.disk_usage(root).free
        filler.write_bytes(bytes(max(0, free - 4096 * pages)))
        try:
            publish(root, releases[1])
        except MachineError as error:
            failures += 1
            assert "No space left on device" in str(error) and "stays as it was" in str(error)
            filler.unlink()
            assert state(root) == before and not unfinished(root), pages
            assert verify.verify(root) == []
        else:
            break
    filler.unlink()
    assert failures > 3 and layout.live(root / small.MODEL) == 2 and verify.verify(root) == []


def test_a_read_only_repository_is_named(repository, releases, mount):
    root = mount("--bind", "-o", "ro", str(repository))
    if "ro" not in _options(root):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(root)], check=True)
    for work in (
        lambda: publish(root, releases[3]),
        lambda: rollback(root, small.MODEL),
        lambda: prune(root, small.MODEL, 1),
    ):
        with pytest.raises(MachineError, match=r"cannot lock it: Read-only file system .*stays as it was"):
            work()
    assert verify.verify(root) == []


def _options(folder):
    lines = Path("/proc/mounts").read_text().splitlines()
    line = next(line for line in lines if line.split()[1] == str(folder))
    return line.split()[3].split(",")


def test_two_publishers_take_turns(repository, releases):
    slow = threading.Event()

    def wait(staged):
        slow.wait(5)
        return trusting(staged)

    first = threading.Thread(target=publish, args=(repository, releases[3], wait))
    first.start()
    while not unfinished(repository):
        time.sleep(0.01)
    with (
        pytest.raises(MachineError, match=r"waited 0.2 s, it is held by .*@.*, process \d+, since .*\(test\)"),
        locked(repository, "the second", wait_s=0.2),
    ):
        raise AssertionError("two publishers at once")
    second = threading.Thread(target=publish, args=(repository, releases[0]))
    second.start()
    slow.set()
    first.join()
    second.join()
    assert repositories.versions(repository / small.MODEL) == (1, 2, 3, 4, 5)
    assert verify.verify(repository) == []


def test_four_processes_publish_at_once(repository, releases):
    killing.together(4, killing.publish, repository, releases[3])
    assert repositories.versions(repository / small.MODEL) == (1, 2, 3, 4, 5, 6, 7)
    assert verify.verify(repository) == []


def test_the_lock_of_a_dead_publisher_is_free(repository, releases):
    assert killing.killed_at(10, "file", killing.publish, repository, releases[3])
    assert json.loads((repository / ".lock").read_text())["doing"] == "test"
    started = time.monotonic()
    publish(repository, releases[3])
    assert time.monotonic() - started < 1


def test_a_model_folder_with_something_foreign_is_refused(model, releases):
    (model / "7").mkdir()
    with pytest.raises(InputError, match=r"cannot be changed: .*/7: made by hand, it has no provenance.json; remove it"):
        publish(model.parent, releases[3])
    (model / "7").rmdir()
    shutil.copytree(model / "2", model / "8")
    with pytest.raises(InputError, match=r"/8: made by hand from version 2 of 'classification_tiny'; remove it"):
        publish(model.parent, releases[3])
    shutil.rmtree(model / "8")
    (model / "notes.txt").touch()
    with pytest.raises(InputError, match=r"notes.txt: not put there by optkit publish"):
        publish(model.parent, releases[3])


def test_a_link_out_of_the_repository_is_refused(model, releases, tmp_path):
    outside = tmp_path / "outside"
    model.rename(outside)
    model.symlink_to(outside)
    before = state(outside)
    with pytest.raises(InputError, match=r"classification_tiny: a symbolic link to .*outside; put the file itself there"):
        publish(model.parent, releases[3])
    assert state(outside) == before
    model.unlink()
    outside.rename(model)
    (model / "2" / "engine" / "more").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match=r"more: a symbolic link to /etc/passwd"):
        publish(model.parent, releases[3])
