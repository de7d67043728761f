"""Temporary things: gone with their owner's block, left alone while it lives, removed by the next when it was killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from optkit.core import temporary
from optkit.core.errors import MachineError

HOLD = """
import sys
from pathlib import Path
from optkit.core import temporary
with temporary.{kind}({arguments}) as made:
    (made / "half").write_text("half") if made.is_dir() else made.write_text("half")
    print(made, flush=True)
    sys.stdin.read()
"""
FOLDER, FILE = ("folder", "'.scratch', Path(sys.argv[1])"), ("file", "Path(sys.argv[1]) / 'result.json'")
NEW_PROCESS_IDS = ["unshare", "--map-root-user", "--pid", "--fork", "--mount-proc"]


@contextmanager
def owner(
    place: Path, kind: str, arguments: str, prefix: tuple[str, ...] = ()
) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """Another process that holds something in a folder; what, and the process."""
    command = [*prefix, sys.executable, "-c", HOLD.format(kind=kind, arguments=arguments), str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Path(process.stdout.readline().strip()), process


@pytest.mark.parametrize(("kind", "arguments"), [FOLDER, FILE])
def test_what_a_living_process_holds_is_left_and_goes_with_it(tmp_path: Path, kind: str, arguments: str) -> None:
    with owner(tmp_path, kind, arguments) as (made, _):
        temporary.sweep_tree(tmp_path)
        assert made.exists()
    assert not made.exists()


@pytest.mark.parametrize(("kind", "arguments"), [FOLDER, FILE])
def test_what_a_killed_process_held_is_removed_by_the_next(tmp_path: Path, kind: str, arguments: str) -> None:
    with owner(tmp_path, kind, arguments) as (made, process):
        process.kill()
    assert made.exists()
    temporary.sweep_tree(tmp_path.parent)
    assert not made.exists()


@pytest.mark.parametrize(("kind", "arguments"), [FOLDER, FILE])
def test_a_process_in_another_container_is_seen_to_live_and_to_have_died(tmp_path: Path, kind: str, arguments: str) -> None:
    """Its process id means nothing here."""
    if subprocess.run([*NEW_PROCESS_IDS, "true"], capture_output=True).returncode:
        pytest.skip("no process ids of its own on this machine")
    with owner(tmp_path, kind, arguments, tuple(NEW_PROCESS_IDS)) as (made, process):
        temporary.sweep_tree(tmp_path)
        assert made.exists()
        os.kill(next(int(child) for child in children(process.pid)), signal.SIGKILL)
        process.wait()
        temporary.sweep_tree(tmp_path)
        assert not made.exists()


def children(process: int) -> list[str]:
    """Ids of a process's children."""
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


@pytest.mark.parametrize("days", [1, 8])
def test_what_another_machine_made_is_left_for_a_week_after_its_last_change(tmp_path: Path, days: float) -> None:
    foreign = tmp_path / ".seed-0.unfinished-00000000-11111111"
    (foreign / "deep").mkdir(parents=True)
    before_0_2 = tmp_path / ".seed-0.unfinished-4242"
    before_0_2.mkdir()
    changed = time.time() - days * 86400
    for path in (foreign / "deep", foreign, before_0_2):
        os.utime(path, (changed, changed))
    temporary.sweep_tree(tmp_path)
    assert foreign.exists() == before_0_2.exists() == (days < 7)


def test_a_change_deep_within_counts(tmp_path: Path) -> None:
    foreign = tmp_path / ".seed-0.unfinished-00000000-11111111"
    (foreign / "deep").mkdir(parents=True)
    os.utime(foreign, (0, 0))
    temporary.sweep(tmp_path)
    assert foreign.exists()


@pytest.mark.parametrize(
    "name", ["optkit-results", ".hidden", "seed-0", ".seed-0.training", ".superseded", "optkit-run-mine"]
)
def test_what_is_not_temporary_is_never_touched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    os.utime(tmp_path / name, (0, 0))
    temporary.sweep_tree(tmp_path)
    assert (tmp_path / name).exists()


def test_links_are_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data").touch()
    with temporary.folder(".scratch", tmp_path) as made:
        name = made.name
    (tmp_path / name).symlink_to(precious)
    temporary.sweep(tmp_path)
    assert (precious / "data").exists()


def test_a_log_that_an_error_names_is_kept_for_a_week(tmp_path: Path) -> None:
    with (
        pytest.raises(MachineError),
        temporary.folder(".logs", tmp_path, keep_after=MachineError) as kept,
    ):
        (kept / "log").touch()
        raise MachineError("see the log")
    temporary.sweep(tmp_path)
    assert (kept / "log").exists()
    for path in (*kept.iterdir(), kept):
        os.utime(path, (0, 0))
    temporary.sweep(tmp_path)
    assert not kept.exists()


def test_another_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), temporary.folder(".logs", tmp_path, keep_after=MachineError):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_file_takes_its_place_or_vanishes(tmp_path: Path) -> None:
    with temporary.file(tmp_path / "a") as new:
        new.write_text("new")
        new.rename(tmp_path / "a")
    with pytest.raises(ValueError, match="half"), temporary.file(tmp_path / "a") as new:
        new.write_text("half")
        raise ValueError("half")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


def test_many_at_once_do_not_take_each_others_for_abandoned(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from optkit.core import temporary
for _ in range(300):
    with temporary.folder(".scratch", Path(sys.argv[1])) as made:
        (made / "a").touch()
        assert (made / "a").exists()
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert list(tmp_path.iterdir()) == []


def test_what_lies_in_a_place_of_everybody_is_for_this_user_alone(tmp_path: Path) -> None:
    with temporary.folder("optkit-server", tmp_path) as private, temporary.folder(".scratch", tmp_path) as beside:
        assert (private.stat().st_mode & 0o777, beside.stat().st_mode & 0o700) == (0o700, 0o700)
        assert beside.stat().st_mode & 0o777 == 0o777 & ~umask()


def umask() -> int:
    """This process's mask of new files."""
    os.umask(found := os.umask(0))
    return found
