"""What is left when watcher, front and parent are killed at once, and what a server that is asked to end leaves: nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from optkit.serving import leftovers, server

from . import toy
from .test_server import PARENT, gone, processes, shared_memory, tritonserver

pytestmark = [pytest.mark.server, pytest.mark.slow]
IDENTITY = len("optkit-server-00000000-00000000")
SERVE = """
import sys
from optkit.cli.app import main
main(["serve", "--repository", sys.argv[1], "--port", sys.argv[2], "--unpublished"])
"""


def started(toy_repository: Path, logs: Path) -> tuple[subprocess.Popen[str], str]:
    """A process that runs a server, and the server's identity."""
    command = [sys.executable, "-c", PARENT, str(toy_repository), str(logs)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().split()[0]


def test_all_killed_at_once_the_next_command_finds_and_removes_it(toy_repository: Path, tmp_path: Path) -> None:
    environments = leftovers.environments()
    parent, identity = started(toy_repository, tmp_path)
    family = psutil.Process(parent.pid).children()  # the watcher and the front
    stubs = tritonserver(identity).children()
    for process in (*family, *stubs, psutil.Process(parent.pid)):
        process.kill()
    parent.wait()
    assert shared_memory(identity) and Path("/dev/shm", identity).exists()
    others = others_live()
    leftovers.sweep()
    assert gone(identity) and not Path("/dev/shm", identity).exists()
    assert not leftovers.environments() - environments or others or others_live()


def others_live() -> bool:
    """Whether another server on this machine may have made a folder meanwhile."""
    return bool(leftovers._starts_of_servers())


def test_a_server_that_ended_unasked_for_is_none(tmp_path: Path) -> None:
    program = tmp_path / "tritonserver"
    program.symlink_to("/bin/sleep")
    for seconds, counts in (("60", 1), ("0", 0)):
        before = len(leftovers._starts_of_servers())
        with subprocess.Popen([program, seconds]) as process:
            ends = time.monotonic() + 10
            while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE and seconds == "0":
                assert time.monotonic() < ends
                time.sleep(0.01)
            assert len(leftovers._starts_of_servers()) == before + counts
            process.kill()


def test_a_living_server_is_left_alone(toy_repository: Path, tmp_path: Path) -> None:
    with server.Server(toy_repository, tmp_path, ["single"]) as running:
        subprocess.run([sys.executable, "-c", "from optkit.serving import leftovers; leftovers.sweep()"], check=True)
        assert running.alive() and running.version()
        assert Path("/dev/shm", running.identity).exists()
    assert not list(Path("/dev/shm").glob(f"{running.identity}*"))


def test_a_server_whose_watcher_was_killed_ends_with_its_block(toy_repository: Path, tmp_path: Path) -> None:
    with server.Server(toy_repository, tmp_path, ["single"]) as running:
        tritonserver(running.identity).parent().kill()
    assert gone(running.identity) and not Path("/dev/shm", running.identity).exists()


def test_a_signal_while_a_server_is_ended_leaves_nothing(
    toy_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt), server.Server(toy_repository, tmp_path, ["single"]) as running:
        assert running._triton is not None
        made, supervisor = running._triton._environments, running._triton.supervisor
        wait = supervisor.wait

        def interrupted(timeout: float | None = None) -> int:
            monkeypatch.setattr(supervisor, "wait", wait)
            raise KeyboardInterrupt

        monkeypatch.setattr(supervisor, "wait", interrupted)
    assert gone(running.identity, deadline_s=0) and not Path("/dev/shm", running.identity).exists()
    assert len(made) > 1 or not any(folder.exists() for folder in made)  # of several, one may be another server's


def test_a_backend_process_that_starts_without_its_server_ends(toy_repository: Path, tmp_path: Path) -> None:
    """The server is killed while its backend process still imports the model."""
    root = tmp_path / "repository"
    version = toy.place(root, toy.folder(tmp_path / "engine"), "slow")
    (version / "model.py").write_text(f"import time\ntime.sleep(3)\n{toy.model_py()}")
    code = PARENT.replace('["single"]', '["slow"]').replace(
        "with running:", "print(running.repository, flush=True)\nwith running:"
    )
    command = [sys.executable, "-c", code, str(root), str(tmp_path / "logs")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None and parent.stdout.readline()
        deadline = time.monotonic() + 20
        while not (new := regions(root)) and time.monotonic() < deadline:
            time.sleep(0.05)
        (identity,) = {name[:IDENTITY] for name in new}
        time.sleep(0.5)
        tritonserver(identity).parent().kill()
        parent.kill()
    assert gone(identity, deadline_s=10), processes(identity)


def regions(root: Path) -> list[str]:
    """Names of the shared memory of the server of a repository."""
    names = [name for name in os.listdir("/dev/shm") if name.startswith("optkit-server") and name.count("-") > 3]
    return [name for name in names if Path("/dev/shm", name[:IDENTITY], "repository").resolve() == root]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_serve_ends_well_when_it_is_asked_to(toy_repository: Path, tmp_path: Path, number: signal.Signals) -> None:
    root, scratch = tmp_path / "repository", tmp_path / "scratch"
    toy.place(root, toy.folder(tmp_path / "engine"), "one")
    scratch.mkdir()
    command = [sys.executable, "-c", SERVE, str(root), "0"]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as serving:
        assert serving.stderr is not None and "serving one on" in serving.stderr.readline()
        assert list(scratch.iterdir())
        serving.send_signal(number)
        assert serving.wait(15) == 0
        assert "stopping" in serving.stderr.read()
    assert not list(scratch.iterdir())


def test_an_interrupt_that_is_ignored_stays_ignored() -> None:
    """As under `nohup`."""
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from optkit.cli import ending\n"
        "with ending.Ending().asked_for():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    print('went on', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("went on\n", 128 + signal.SIGTERM)
