"""The memory of a tree of processes does not depend on what runs beside it."""

import mmap
import os
import subprocess
import sys

import pytest

from optkit.serving import memory

MIB = 1 << 20
CODE = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    seen = sum(mapped[at] for at in range(0, len(mapped), 4096))
own = bytearray(b"x" * (int(sys.argv[2]) << 20))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def mapping(tmp_path):
    """Starts children that hold so many MiB of their own and a file of 32 MiB in common."""
    file = tmp_path / "library"
    file.write_bytes(os.urandom(32 * MIB))
    children = []

    def start(own_mib):
        command = [sys.executable, "-c", CODE, str(file), str(own_mib)]
        children.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert children[-1].stdout.readline() == "ready\n"

    yield start, file
    for child in children:
        child.stdin.close()
        child.wait()
        child.stdout.close()


def test_own_memory_adds_up_and_what_is_shared_counts_once(mapping):
    start, _ = mapping
    before = memory.used_bytes(os.getpid())
    start(8)
    one = memory.used_bytes(os.getpid()) - before
    start(64)
    both = memory.used_bytes(os.getpid()) - before
    assert 40 * MIB < one < 80 * MIB  # 8 and 32, and an interpreter
    assert 64 * MIB < both - one < 64 * MIB + 24 * MIB, "the file once, the interpreter's own memory twice"


def test_a_process_outside_changes_nothing(mapping):
    start, file = mapping
    start(8)
    before = memory.used_bytes(os.getpid())
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[at] for at in range(0, len(mapped), 4096)) > 0
        assert abs(memory.used_bytes(os.getpid()) - before) < MIB
