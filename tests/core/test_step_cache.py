"""Finished steps: made once, whole or not at all, whatever interrupts them."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from optkit.core import atomic, step_cache
from optkit.core.errors import InputError, OptkitError
from optkit.core.json_door import read_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "step"


def writes(text: str = "content", calls: list[Path] | None = None) -> Callable[[Path], None]:
    """A `make` that writes two files, one of them in a folder of its own."""

    def make(unfinished: Path) -> None:
        (unfinished / "deep").mkdir()
        (unfinished / "deep" / "a.txt").write_text(text)
        (unfinished / "b.bin").write_bytes(bytes(range(256)))
        if calls is not None:
            calls.append(unfinished)

    return make


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.glob(".*unfinished*"))


def python(code: str, *arguments: Path) -> subprocess.CompletedProcess:
    script = f"import os, sys, signal\nfrom pathlib import Path\nfrom optkit.core import atomic, step_cache\n{code}"
    return subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True)


def on_a_small_disk(code: str, tmp_path: Path, prepare: str = "true") -> str:
    """Runs code in a process that alone sees a disk of 1 MB at its first argument; gives what it printed."""
    if not shutil.which("unshare"):
        pytest.skip("a small disk needs unshare (util-linux), which is missing")
    mount = f'mount -t tmpfs -o size=1m tmpfs "{tmp_path}" && {prepare}'
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("a small disk needs the right to mount a tmpfs in a namespace of its own, which is missing")
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from optkit.core import atomic, step_cache\nfrom optkit.core.errors import MachineError\n"
        f"disk = Path({str(tmp_path)!r})\n{code}"
    )
    command = ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$0" -c "$1"', sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_step_is_made_once_and_found_again(folder: Path) -> None:
    calls: list[Path] = []
    key = step_cache.step(folder, {"a": 1, "b": [2]}, writes(calls=calls))
    assert step_cache.step(folder, {"b": [2], "a": 1}, writes(calls=calls)) == key == step_cache.key_at(folder)
    assert len(calls) == 1 and calls[0] != folder
    assert (folder / "deep" / "a.txt").read_text() == "content"
    assert left_over(folder) == []


def test_the_record_says_what_a_step_depends_on_and_what_it_holds(folder: Path) -> None:
    step_cache.step(folder, {"a": 1}, writes())
    record = read_json(folder / step_cache.RECORD)
    assert record["depends_on"] == {"a": 1}
    assert record["files"] == {
        "b.bin": "40aff2e9d2d8922e47afd4648e6967497158785fbd1da870e7110266bf944880",  # sha256sum
        "deep/a.txt": "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73",
    }


@pytest.mark.parametrize("keep", [True, False])
def test_a_changed_dependency_makes_it_again(folder: Path, keep: bool) -> None:
    old = step_cache.step(folder, {"a": 1}, writes("old"), keep)
    assert step_cache.step(folder, {"a": 2}, writes("new"), keep) != old
    assert (folder / "deep" / "a.txt").read_text() == "new"
    aside = folder.parent / ".superseded" / f"step-{old[:8]}"
    assert aside.exists() is keep
    if keep:
        step_cache.verify(aside)
        assert (aside / "deep" / "a.txt").read_text() == "old"


def test_numbers_as_names_are_found_again(folder: Path) -> None:
    """As in `id2label` of more than ten classes, whose order is another one as text."""
    calls: list[Path] = []
    depends_on = {"id2label": {number: f"class {number}" for number in range(12)}}
    for _ in range(2):
        step_cache.step(folder, depends_on, writes(calls=calls))
    step_cache.verify(folder)
    assert len(calls) == 1


def test_a_folder_that_is_no_step_is_replaced(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("kept")
    step_cache.step(folder, {"a": 1}, writes(), keep=True)
    assert not (folder / "mine.txt").exists()
    assert (folder.parent / ".superseded" / "step-unknown" / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize("interruption", [RuntimeError("no"), KeyboardInterrupt(), SystemExit(1)])
def test_an_interrupted_step_leaves_the_old_one_and_nothing_else(folder: Path, interruption: BaseException) -> None:
    key = step_cache.step(folder, {"a": 1}, writes("old"))

    def make(unfinished: Path) -> None:
        writes("half")(unfinished)
        raise interruption

    with pytest.raises(type(interruption)) as error:
        step_cache.step(folder, {"a": 2}, make)
    assert error.value is interruption
    assert step_cache.key_at(folder) == key and (folder / "deep" / "a.txt").read_text() == "old"
    assert left_over(folder) == []


def test_a_killed_step_is_not_there_and_the_next_run_makes_it(folder: Path) -> None:
    code = """
def make(unfinished):
    (unfinished / "half.txt").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

step_cache.step(Path(sys.argv[1]), {"a": 1}, make)
"""
    assert python(code, folder).returncode == -signal.SIGKILL
    assert not folder.exists() and len(left_over(folder)) == 1
    step_cache.step(folder, {"a": 1}, writes())
    assert sorted(atomic.hashes(folder)) == ["b.bin", "deep/a.txt", step_cache.RECORD]
    assert left_over(folder) == []


def test_the_work_of_a_living_process_is_left_alone(folder: Path) -> None:
    folder.parent.mkdir()
    code = """
def make(unfinished):
    print(unfinished, flush=True)
    sys.stdin.read()

step_cache.step(Path(sys.argv[1]), {"a": 2}, make)
"""
    script = f"import sys\nfrom pathlib import Path\nfrom optkit.core import step_cache\n{code}"
    command = [sys.executable, "-c", script, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        at_work = Path(other.stdout.readline().strip())
        step_cache.step(folder, {"a": 1}, writes())
        assert at_work.exists()


def test_a_step_waits_while_another_process_puts_one_in_place(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="optkit")
    folder.parent.mkdir()
    code = """
with locks.exclusive(Path(sys.argv[1]), "these steps", "putting another in place", 60):
    print("held", flush=True)
    sys.stdin.read()
"""
    script = f"import sys\nfrom pathlib import Path\nfrom optkit.core import locks\n{code}"
    command = [sys.executable, "-c", script, str(folder.parent / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdin is not None and other.stdout.readline() == "held\n"
        threading.Timer(0.3, other.stdin.close).start()
        step_cache.step(folder, {"a": 1}, writes())
    assert f"process {other.pid}, since " in caplog.text and "(putting another in place); waiting" in caplog.text


def test_a_flipped_bit_names_the_file(folder: Path) -> None:
    step_cache.step(folder, {"a": 1}, writes())
    data = bytearray((folder / "b.bin").read_bytes())
    data[100] ^= 1
    (folder / "b.bin").write_bytes(data)
    with pytest.raises(InputError) as error:
        step_cache.step(folder, {"a": 1}, writes())
    assert str(error.value).startswith(f"{folder}/b.bin: SHA-256 is ")
    assert "record.json says 40aff2e9d2d8922e: the file changed after it was written" in str(error.value)
    assert str(error.value).endswith(f"Delete {folder} to have it made again")


def test_a_missing_file_is_named(folder: Path) -> None:
    step_cache.step(folder, {"a": 1}, writes())
    (folder / "deep" / "a.txt").unlink()
    with pytest.raises(InputError, match=r"deep/a\.txt: SHA-256 is missing, record\.json says ed7002b439e9ac84"):
        step_cache.verify(folder)


@pytest.mark.parametrize("content", ["{", "[]", "{}", "\udcff"])
def test_a_broken_record_says_what_to_delete(folder: Path, content: str) -> None:
    step_cache.step(folder, {"a": 1}, writes())
    (folder / step_cache.RECORD).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"record\.json: .*delete"):
        step_cache.step(folder, {"a": 1}, writes())


def test_a_full_disk(tmp_path: Path) -> None:
    code = """
def make(unfinished):
    for number in range(100):
        (unfinished / f"{number}.bin").write_bytes(bytes(100_000))

try:
    step_cache.step(disk / "step", {"a": 1}, make)
except MachineError as error:
    print(error)
print([path.name for path in disk.iterdir() if path.name != ".lock"])
step_cache.step(disk / "step", {"a": 1}, lambda unfinished: (unfinished / "a").write_bytes(bytes(100_000)))
print(sorted(path.name for path in disk.rglob("*") if path.name != ".lock"))
"""
    message, after, again = on_a_small_disk(code, tmp_path).splitlines()
    assert message.startswith(f"{tmp_path}/step: cannot be written: No space left on device (")
    assert message.endswith("nothing was left half-written. Free some space or give another folder")
    assert after == "[]"
    assert again == "['a', 'record.json', 'step']"


def test_a_disk_that_is_full_when_all_is_written_stops_nothing(tmp_path: Path) -> None:
    code = """
def fill(folder):
    with (disk / "filler").open("wb", buffering=0) as filler:
        try:
            while filler.write(bytes(4096)):
                pass
        except OSError:
            print("full")

step_cache.flush_tree = fill
step_cache.step(disk / "step", {"a": 1}, lambda unfinished: (unfinished / "a").write_bytes(bytes(100_000)))
print(step_cache.key_at(disk / "step") == step_cache.key_of({"a": 1}), (disk / ".lock").read_bytes())
"""
    assert on_a_small_disk(code, tmp_path).splitlines() == ["full", "True b''"]


@pytest.mark.parametrize("library", ["safetensors", "numpy"])
def test_a_full_disk_behind_a_librarys_own_error(library: str, tmp_path: Path) -> None:
    save = {
        "safetensors": "from safetensors.numpy import save_file as save; save({'a': values}, unfinished / 'a')",
        "numpy": "numpy.savez(unfinished / 'a.npz', a=values)",
    }[library]
    code = f"""
import numpy

def make(unfinished):
    values = numpy.zeros(1_000_000)
    {save}

try:
    step_cache.step(disk / "step", {{"a": 1}}, make)
except MachineError as error:
    print(error)
print([path.name for path in disk.iterdir() if path.name != ".lock"])
"""
    message, after = on_a_small_disk(code, tmp_path).splitlines()
    assert "step: cannot be written: No space left on device (" in message
    assert after == "[]"


def test_a_full_disk_keeps_the_old_text(tmp_path: Path) -> None:
    code = """
atomic.write_text(disk / "a.txt", "old")
try:
    atomic.write_text(disk / "a.txt", "x" * 2_000_000)
except MachineError as error:
    print(error)
print([(path.name, path.read_text()) for path in disk.iterdir()])
"""
    message, after = on_a_small_disk(code, tmp_path).splitlines()
    assert message.startswith(f"{tmp_path}/a.txt: cannot be written: No space left on device")
    assert after == "[('a.txt', 'old')]"


def test_a_read_only_disk(tmp_path: Path) -> None:
    code = """
for write in (lambda: step_cache.step(disk / "step", {"a": 1}, print), lambda: atomic.write_json(disk / "a.json", {})):
    try:
        write()
    except MachineError as error:
        print(error)
"""
    step, text = on_a_small_disk(code, tmp_path, f'mount -o remount,ro "{tmp_path}"').splitlines()
    assert step.startswith(f"{tmp_path}/step: cannot be written: Read-only file system")
    assert text.startswith(f"{tmp_path}/a.json: cannot be written: Read-only file system")


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(OptkitError, match=r"runs/step: cannot be written: "):
        step_cache.step(tmp_path / "runs" / "step", {"a": 1}, writes())


def test_an_error_of_the_users_own_is_not_the_disks(folder: Path) -> None:
    def make(unfinished: Path) -> None:
        raise InputError("the recipe is wrong")

    with pytest.raises(InputError, match="the recipe is wrong"):
        step_cache.step(folder, {"a": 1}, make)


def test_json_comes_back(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "a.json", {"grün": [1, None, 0.1]})
    assert read_json(tmp_path / "a.json") == {"grün": [1, None, 0.1]}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.slow
def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    path, texts = tmp_path / "a.txt", {letter * 300_000 for letter in "ab"}
    atomic.write_text(path, "a" * 300_000)
    code = "for number in range(200):\n    atomic.write_text(Path(sys.argv[1]), 'ab'[number % 2] * 300_000)"
    script = f"import sys\nfrom pathlib import Path\nfrom optkit.core import atomic, step_cache\n{code}"
    with subprocess.Popen([sys.executable, "-c", script, str(path)]) as writer:
        seen = set()
        while writer.poll() is None:
            seen.add(path.read_text())
    assert writer.returncode == 0
    assert seen <= texts


def test_text_is_utf_8_in_every_locale(tmp_path: Path) -> None:
    code = "atomic.write_text(Path(sys.argv[1]), 'gr\\xfcn'); print(ascii(json_door.read_json(Path(sys.argv[2]))))"
    (tmp_path / "b.json").write_bytes('"grün"'.encode())
    script = f"import sys\nfrom pathlib import Path\nfrom optkit.core import atomic, json_door\n{code}"
    environment = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.txt"), str(tmp_path / "b.json")],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.txt").read_bytes() == "grün".encode()
    assert done.stdout == "'gr\\xfcn'\n"


@pytest.mark.slow
def test_processes_that_make_the_same_step_at_once_all_end_well(tmp_path: Path) -> None:
    code = """
import time
from multiprocessing import get_context

def work(barrier, root):
    for number in range(60):
        barrier.wait()
        end = time.monotonic() + 0.005

        def make(unfinished):
            (unfinished / "a.txt").write_text("whole")
            time.sleep(max(0.0, end - time.monotonic()))  # so that all end at once, too

        step_cache.step(root / str(number), {"a": 1}, make, keep=True)
        step_cache.verify(root / str(number))

context, root = get_context("fork"), Path(sys.argv[1])
barrier = context.Barrier(3, timeout=10)
workers = [context.Process(target=work, args=(barrier, root)) for _ in range(3)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
sys.exit(max(abs(worker.exitcode) for worker in workers))
"""
    done = python(code, tmp_path)
    assert done.returncode == 0, next((line for line in done.stderr.splitlines() if "Error: " in line), done.stderr)
    assert {(tmp_path / str(number) / "a.txt").read_text() for number in range(60)} == {"whole"}
    assert left_over(tmp_path / "0") == []


def superseded(folder: Path) -> list[str]:
    return sorted((path / "b.txt").read_text() for path in (folder.parent / ".superseded").iterdir())


def writes_value(value: int, calls: list[int]) -> Callable[[Path], None]:
    def make(unfinished: Path) -> None:
        (unfinished / "b.txt").write_text(str(value))
        calls.append(value)

    return make


def test_going_back_finds_what_was_made_before_with_all_that_was_made_from_it(folder: Path) -> None:
    calls: list[int] = []
    for value in (1, 2, 1, 2, 2, 1):
        step_cache.step(folder, {"a": value}, writes_value(value, calls), keep=True)
        assert (folder / "b.txt").read_text() == str(value)
        step_cache.step(folder / "graph", {"of": value}, writes_value(10 * value, calls))
        assert (folder / "graph" / "b.txt").read_text() == str(10 * value)
    assert calls == [1, 10, 2, 20]
    assert superseded(folder) == ["2"]


def test_what_is_not_kept_is_made_again(folder: Path) -> None:
    calls: list[int] = []
    for value in (1, 2, 1):
        step_cache.step(folder, {"a": value}, writes_value(value, calls))
    assert calls == [1, 2, 1] and superseded(folder) == []


def test_the_last_five_are_kept_and_what_is_no_step_for_ever(folder: Path) -> None:
    calls: list[int] = []
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("kept")
    for value in (*range(7), 1, 7, 8):
        step_cache.step(folder, {"a": value}, writes_value(value, calls), keep=True)
    assert calls == [*range(9)], "1 was found again"
    assert (folder.parent / ".superseded" / "step-unknown" / "mine.txt").read_text() == "kept"
    shutil.rmtree(folder.parent / ".superseded" / "step-unknown")
    assert superseded(folder) == ["1", "4", "5", "6", "7"], "in the order in which they were set aside: 1 late"


def test_one_seed_does_not_push_out_what_another_has_set_aside(tmp_path: Path) -> None:
    calls: list[int] = []
    for name in ("seed-1", "seed-10"):
        for value in range(5):
            step_cache.step(tmp_path / name, {"a": value, "of": name}, writes_value(value, calls), keep=True)
    assert len(list((tmp_path / ".superseded").iterdir())) == 8


@pytest.mark.parametrize("harm", ["changed", "gone", "record", "another key"])
def test_what_is_not_whole_is_not_taken_back(harm: str, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []
    old = step_cache.step(folder, {"a": 1}, writes_value(1, calls), keep=True)
    step_cache.step(folder, {"a": 2}, writes_value(2, calls), keep=True)
    aside = folder.parent / ".superseded" / f"step-{old[:8]}"
    if harm == "changed":
        (aside / "b.txt").write_text("3")
    elif harm == "gone":
        (aside / "b.txt").unlink()
    elif harm == "record":
        (aside / step_cache.RECORD).write_text("{")
    else:
        record = read_json(aside / step_cache.RECORD)
        atomic.write_json(aside / step_cache.RECORD, {**record, "key": old[:8] + "0" * 56})
    step_cache.step(folder, {"a": 1}, writes_value(1, calls), keep=True)
    assert calls == [1, 2, 1] and (folder / "b.txt").read_text() == "1"
    assert ("not taken back" in caplog.text) is (harm != "another key")


@pytest.mark.parametrize("renames", [0, 1])
def test_killed_while_it_is_taken_back_loses_nothing(renames: int, folder: Path) -> None:
    calls: list[int] = []
    for value in (1, 2):
        step_cache.step(folder, {"a": value}, writes_value(value, calls), keep=True)
    code = f"""
replace, done = os.replace, []

def die(source, target):
    if len(done) == {renames}:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(replace(source, target))

os.replace = die
step_cache.step(Path(sys.argv[1]), {{"a": 1}}, print, keep=True)
"""
    assert python(code, folder).returncode == -signal.SIGKILL
    assert folder.exists() is (renames == 0)
    for value in (2, 1, 2):
        step_cache.step(folder, {"a": value}, writes_value(value, calls), keep=True)
        step_cache.verify(folder)
    assert calls == [1, 2] and superseded(folder) == ["1"]


@pytest.mark.slow
def test_processes_that_swap_a_step_at_once_make_nothing_twice(folder: Path) -> None:
    calls: list[int] = []
    for value in (1, 2):
        step_cache.step(folder, {"a": value}, writes_value(value, calls), keep=True)
    code = """
def never(unfinished):
    raise SystemExit(7)

for number in range(200):
    step_cache.step(Path(sys.argv[1]), {"a": 1}, never, keep=True)
"""
    script = f"import sys\nfrom pathlib import Path\nfrom optkit.core import step_cache\n{code}"
    workers = [subprocess.Popen([sys.executable, "-c", script, str(folder)]) for _ in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    assert (folder / "b.txt").read_text() == "1" and superseded(folder) == ["2"]


def test_what_came_out_otherwise_is_something_else_to_depend_on(folder: Path) -> None:
    found = []
    for text in ("first", "second", "first"):
        step_cache.step(folder, {"a": 1}, writes(text))
        found.append(step_cache.content_at(folder))
        shutil.rmtree(folder)
    assert found[0] == found[2] != found[1]


def test_a_record_of_an_older_optkit_is_depended_on_by_its_key(folder: Path) -> None:
    key = step_cache.step(folder, {"a": 1}, writes())
    record = read_json(folder / "record.json")
    del record["content"]
    atomic.write_json(folder / "record.json", record)
    assert step_cache.content_at(folder) == key
