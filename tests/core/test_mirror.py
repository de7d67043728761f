"""Checkpoints in an object store: steps that appear whole, are made once for all machines, and survive the end of each."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optkit.core import atomic, mirror, step_cache
from optkit.core.errors import InputError, MachineError
from optkit.core.object_store import Store
from optkit.training.resume import Snapshots
from tests.conftest import S3_KEYS

pytest.importorskip("obstore", reason="object stores need obstore: pip install -e '.[stores,test]'")

PLACE, SETTINGS = Path("task") / "recipe" / "seed-0", {"epochs": 1}
Enter = Callable[[str], Path]


@pytest.fixture
def url(s3: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {**S3_KEYS, "AWS_ENDPOINT": s3[0]}.items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket/{tmp_path.name}"


@pytest.fixture
def enter(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Enter:
    """Go to a machine, which has a cache of its own; gives its mirror."""

    def to(machine: str) -> Path:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
        return mirror.place(url)

    return to


def writes(text: str, meanwhile: Callable[[], object] = lambda: None) -> Callable[[Path], None]:
    def make(unfinished: Path) -> None:
        (unfinished / "deep").mkdir()
        (unfinished / "deep" / "a.txt").write_text(text)
        (unfinished / "b.bin").write_bytes(bytes(range(256)))
        meanwhile()

    return make


def refuse(unfinished: Path) -> None:
    raise AssertionError("it is made already")


def test_a_machine_finds_what_another_one_made(enter: Enter) -> None:
    first = enter("a") / PLACE
    key = step_cache.step(first, SETTINGS, writes("hello"))
    second = enter("b") / PLACE
    assert second != first and step_cache.step(second, SETTINGS, refuse) == key
    assert atomic.hashes(second) == atomic.hashes(first)
    step_cache.verify(second)


def test_all_settings_are_kept_side_by_side(enter: Enter) -> None:
    step_cache.step(enter("a") / PLACE, SETTINGS, writes("one"))
    step_cache.step(enter("b") / PLACE, {"epochs": 2}, writes("two"))
    assert (enter("b") / PLACE / "deep" / "a.txt").read_text() == "two"
    step_cache.step(enter("b") / PLACE, SETTINGS, refuse)
    step_cache.step(enter("a") / PLACE, {"epochs": 2}, refuse)
    assert (enter("a") / PLACE / "deep" / "a.txt").read_text() == "two"


def test_of_two_who_make_a_step_the_first_counts_for_both(enter: Enter) -> None:
    slow = enter("a") / PLACE

    def overtaken() -> None:
        step_cache.step(enter("b") / PLACE, SETTINGS, writes("quick"))
        enter("a")

    step_cache.step(slow, SETTINGS, writes("slow", overtaken))
    assert (slow / "deep" / "a.txt").read_text() == "quick"
    assert atomic.hashes(slow) == atomic.hashes(enter("b") / PLACE)


KILLED = """
import os, signal, sys
from pathlib import Path
from optkit.core import mirror, step_cache
from optkit.core.object_store import Store

url, place, left = sys.argv[1], sys.argv[2], int(sys.argv[3])

def counted(call):
    def counting(*args):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args)
    return counting

def make(unfinished):
    for name in ("a.txt", "b.txt"):
        (unfinished / name).write_text(f"killed {name}")

root = mirror.place(url)
for name in ("put", "swap"):
    setattr(Store, name, counted(getattr(Store, name)))
step_cache.step(root / place, {"epochs": 1}, make)
"""


@pytest.mark.slow
@pytest.mark.parametrize("writings", range(4))
def test_what_a_killed_process_left_counts_only_when_it_is_whole(enter: Enter, url: str, writings: int) -> None:
    enter("a")
    done = subprocess.run([sys.executable, "-c", KILLED, url, str(PLACE), str(writings)])
    whole = writings == 3
    assert done.returncode == (0 if whole else -signal.SIGKILL)
    folder = enter("b") / PLACE
    step_cache.step(folder, SETTINGS, refuse if whole else writes("anew"))
    assert (folder / "a.txt").is_file() == whole
    step_cache.step(enter("a") / PLACE, SETTINGS, refuse)
    assert atomic.hashes(enter("a") / PLACE) == atomic.hashes(folder)


def test_what_was_changed_in_the_store_is_named(enter: Enter, url: str, tmp_path: Path) -> None:
    folder = enter("a") / PLACE
    key = step_cache.step(folder, SETTINGS, writes("hello"))
    record, store = f"steps/{PLACE.as_posix()}/{key}.json", Store(url)
    (tmp_path / "changed").write_text("other weights")
    digest = atomic.file_hash(folder / "b.bin")
    store.put(f"objects/{digest}", tmp_path / "changed")
    with pytest.raises(InputError, match=f"objects/{digest}: SHA-256 is .* it changed; delete it, and delete {record}"):
        step_cache.step(enter("b") / PLACE, SETTINGS, refuse)
    store.delete([f"objects/{digest}"])
    with pytest.raises(InputError, match=f"objects/{digest}: is missing, {record} names it"):
        step_cache.step(enter("b") / PLACE, SETTINGS, refuse)
    (tmp_path / "changed").write_text((folder / step_cache.RECORD).read_text().replace('"b.bin"', '"../../b.bin"'))
    store.put(record, tmp_path / "changed")
    with pytest.raises(InputError, match="which is not within the step"):
        step_cache.step(enter("b") / PLACE, SETTINGS, refuse)
    assert not folder.with_name("b.bin").exists() and not (enter("b") / PLACE).exists()


def test_a_training_goes_on_from_the_last_snapshot_of_any_machine(enter: Enter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Snapshots, "every_s", 0.0)

    def snapshots(machine: str) -> Snapshots:
        return Snapshots(enter(machine) / PLACE.with_name(".seed-0.training"), "key")

    snapshots("a").save_when_due("phase", lambda: {"step": 10})
    assert snapshots("b").load("phase") == {"step": 10}
    snapshots("b").save_when_due("phase", lambda: {"step": 20})
    assert snapshots("a").load("phase") == {"step": 20}
    snapshots("a").clear()
    assert snapshots("c").load("phase") is None


def test_a_mirror_is_called_after_its_store_and_not_after_its_address(enter: Enter, url: str) -> None:
    root = enter("a")
    assert mirror.place(f"{url}/") == root and mirror.url_of(root) == url
    assert mirror.place(f"{url}-other") != root
    assert mirror.place(root) == root and mirror.of(root.parent) is None


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ("http://bucket/x", InputError, "checkpoints http://bucket/x: expected a folder, or a URL of s3, gs, az"),
        ("s3://nobody/x", MachineError, "checkpoints s3://nobody/x: cannot list"),
    ],
)
def test_no_store_is_refused(url: str, given: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        mirror.place(given)


def test_another_store_is_not_taken_for_one(enter: Enter, url: str, tmp_path: Path) -> None:
    (tmp_path / "mark").write_text('{"id": "../elsewhere"}')
    Store(url).put(mirror.MARK, tmp_path / "mark")
    with pytest.raises(InputError, match=r"store.json: found the id '../elsewhere', expected 32 hexadecimal digits"):
        enter("a")
