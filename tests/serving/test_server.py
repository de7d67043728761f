"""The server starts quickly, says why if it cannot, listens on the loopback address alone, and always ends."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from optkit.core.errors import InputError, MachineError
from optkit.serving import command, install, log, serve
from optkit.serving.client import Client
from optkit.serving.server import Server

from . import toy

pytestmark = pytest.mark.server

PARENT = """
import sys, threading, time
from pathlib import Path
from optkit.serving.server import Server
running = Server(Path(sys.argv[1]), Path(sys.argv[2]), ["single"])
with running:
    print(running.identity, running.url, flush=True)
    time.sleep(60)
"""


def processes(identity):
    """Server and backend processes of one server, which all carry its identity on their command lines."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        if any(identity in part for part in process.info["cmdline"] or ()):
            found.append(process.info["cmdline"][0])
    return found


def tritonserver(identity):
    """The server process itself; the supervisor has the server's command line in its own."""
    return next(p for p in psutil.process_iter(["cmdline"]) if f"--id={identity}" in (p.info["cmdline"] or ())[1:2])


def shared_memory(identity):
    """Regions of one server, whose owner's folder lies beside them."""
    return [name for name in os.listdir("/dev/shm") if name.startswith(f"{identity}-")]


def gone(identity, deadline_s=5.0):
    """Whether a server, its backends and their shared memory are gone by a deadline."""
    deadline = time.monotonic() + deadline_s
    while processes(identity) or shared_memory(identity):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def parent(toy_repository, tmp_path):
    """A process of its own that runs a server; yields it with the server's identity and address."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(toy_repository), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        identity, url = process.stdout.readline().split()
        assert len(processes(identity)) >= 2  # the supervisor, the server and its backend
        yield process, identity, url
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_who_started_a_server_is_told_how_it_ended_and_where_its_log_is(toy_repository, tmp_path):
    def ask_one_that_dies():
        with Server(toy_repository, tmp_path, ["single"]) as running, Client(running.url, "single") as client:
            client.infer(toy.feed(1, 8))
            tritonserver(running.identity).kill()
            client.infer_many([toy.feed(1, 8)] * 1000)

    said = rf"ended while it was asked \(killed by SIGKILL\)\. {tmp_path}/\S+ says:\n"
    with pytest.raises(MachineError, match=said) as error:
        ask_one_that_dies()
    assert "Ask again in a moment" not in str(error.value) and "request" in str(error.value.__cause__)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_parent_ends(parent, number):
    process, identity, _ = parent
    process.send_signal(number)
    process.wait(10)
    assert gone(identity), f"left: {processes(identity)} {shared_memory(identity)}"


def test_nothing_is_left_when_the_warden_is_killed_with_its_parent(parent):
    process, identity, _ = parent
    tritonserver(identity).parent().kill()
    process.kill()
    assert gone(identity, deadline_s=10), f"left: {processes(identity)} {shared_memory(identity)}"


def test_a_server_that_dies_in_mid_run_is_named_with_the_request(parent):
    _, identity, url = parent
    client = Client(url, "single", timeout_s=5)
    feeds = [toy.feed(1, 8)] * 20_000
    killer = subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -9 {tritonserver(identity).pid}"])
    started = time.monotonic()
    said = rf"server on {url}, model 'single', request \d+: refused with status 503: Triton has ended"
    with pytest.raises(MachineError, match=said):
        client.infer_many(feeds, concurrency=2)
    assert time.monotonic() - started < 10
    killer.wait()
    assert gone(identity)


def test_a_stalled_answer_ends_at_the_deadline(ask):
    feed = toy.feed(1, 8)
    feed["input_ids"][0, 0] = toy.SLEEPING
    started = time.monotonic()
    with pytest.raises(MachineError, match=r"model 'single', request 0: no answer within 0.5 s"):
        ask("single", timeout_s=0.5).infer(feed)
    assert time.monotonic() - started < 2


def test_it_listens_on_the_loopback_address_alone(server):
    """Clients reach the front; Triton itself listens on sockets in a folder of this user alone."""
    family = [tritonserver(server.identity), *tritonserver(server.identity).children()]
    assert [c for p in family for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN] == []
    front = psutil.Process(server._front.pid)
    listening = {c.laddr for c in front.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    urls = (server.url, server.metrics_url.removeprefix("http://").removesuffix("/metrics"))
    assert {f"{address.ip}:{address.port}" for address in listening} == set(urls)
    assert stat.S_IMODE(os.stat(server._ticket.folder).st_mode) == 0o700


def test_a_model_that_cannot_load_quotes_the_log(server):
    with pytest.raises(MachineError, match=r"(?s)model 'broken'.*cannot load it.*weights.bin: found 3 bytes") as caught:
        server.load("broken")
    assert str(server.log) in str(caught.value)
    assert server.alive()


def test_a_server_that_dies_while_loading_is_reported_at_once(tmp_path):
    version = toy.place(tmp_path / "repository", toy.folder(tmp_path / "engine"), "fatal")
    (version / "model.py").write_text("import os\nprint('about to die', flush=True)\nos.kill(os.getppid(), 9)\n")
    with (
        pytest.raises(
            MachineError, match=r"(?s)model 'fatal': Triton server on .* cannot load it: Triton has ended.*about to die"
        ),
        Server(tmp_path / "repository", tmp_path / "logs", ["fatal"]) as running,
    ):
        raise AssertionError(f"{running.url} loaded a model that kills it")


def test_folders_may_have_any_name(tmp_path, monkeypatch):
    folder = tmp_path / "mein ünï 日本"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    toy.place(folder / "repository", toy.folder(folder / "engine"), "classify")
    with Server(folder / "repository", folder / "logs", ["classify"]) as running:
        running.load("classify")
        assert running.alive()
    assert not list((folder / "cache" / "optkit" / "servers").glob("*.json"))


def test_a_server_that_cannot_start_quotes_the_log(toy_repository, tmp_path, monkeypatch):
    arguments = command.arguments
    monkeypatch.setattr(command, "arguments", lambda *given: [*arguments(*given), "--cache-config=nowhere,size=9"])
    with pytest.raises(MachineError, match=r"(?s)ended while it was starting.*nowhere"):
        Server(toy_repository, tmp_path).__enter__()


def test_a_busy_port_is_named(toy_repository, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(MachineError, match=f"port {port} on 127.0.0.1 cannot be used: .*Address already in use"):
            Server(toy_repository, tmp_path, http_port=port).__enter__()


def test_an_unknown_model_and_a_missing_repository_are_named(toy_repository, tmp_path):
    with pytest.raises(InputError, match=r"'nobody' is not in the repository .* answer, broken, classify, single"):
        Server(toy_repository, tmp_path, ["nobody"]).__enter__()
    with pytest.raises(InputError, match=r"no such folder"):
        Server(tmp_path / "nowhere", tmp_path).__enter__()


def test_a_log_that_cannot_be_written_is_named(toy_repository, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match=r"cannot write a log into .*file/logs: Not a directory"):
        Server(toy_repository, tmp_path / "file/logs").__enter__()


def test_serve_prints_a_command_that_works(toy_repository, tmp_path):
    root = tmp_path / "repository"
    toy.place(root, toy.folder(tmp_path / "engine"), "my.model-1")
    code = "import sys; from pathlib import Path; from optkit.serving.serve import serve; serve(Path(sys.argv[1]), 0)"
    process = subprocess.Popen([sys.executable, "-c", code, str(root)], stderr=subprocess.PIPE, text=True)
    try:
        assert "serving my.model-1 on http://127.0.0.1:" in process.stderr.readline()
        command = process.stderr.readline().removeprefix("try: ")
        answer = subprocess.run(["sh", "-c", f"{command.strip()} -sS"], capture_output=True, text=True, timeout=30)
        assert '"name":"logits","datatype":"FP32","shape":[1,3]' in answer.stdout, answer
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
        process.stderr.close()


def test_serving_an_empty_repository_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"found no models, expected at least one. Publish one first: optkit publish"):
        serve.serve(tmp_path)


def test_numpy_2_is_refused_before_it_empties_the_outputs(monkeypatch):
    monkeypatch.setattr(install, "version", lambda package: "2.1.0")
    with pytest.raises(MachineError, match=r"found NumPy 2.1.0.*pip install 'numpy<2'"):
        install.find()


def test_a_missing_wheel_says_what_to_install(monkeypatch):
    monkeypatch.setattr(install.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"nvidia-pytriton is not installed.*pip install"):
        install.find()


def test_the_backends_folder_is_made_once_and_mended(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    backends = install.find().backends
    assert re.fullmatch(r"triton-[\d.]+-python3\.\d+", backends.name) and backends.is_relative_to(tmp_path)
    library = backends / "python/libtriton_python.so"
    made = library.stat().st_mtime_ns, library.stat().st_ino
    install.find()
    assert (library.stat().st_mtime_ns, library.stat().st_ino) == made
    library.write_bytes(b"cut off")
    install.find()
    assert library.stat().st_size > 1_000_000
    assert [path.name for path in (tmp_path / "optkit").iterdir()] == [backends.name]


def test_a_cache_that_cannot_be_written_says_where(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(MachineError, match=r"cannot copy its Python backend to .*XDG_CACHE_HOME"):
        install.find()


@pytest.mark.parametrize("grace_s", [0.0, 5.0])
def test_no_folder_of_the_python_backend_is_left(grace_s, toy_repository, tmp_path):
    for _ in range(10):  # until no other server on this machine makes or removes a folder in the same moment
        with Server(toy_repository, tmp_path, ["single"], grace_s=grace_s) as running:
            running.load("classify")
            own = set(running._triton._environments)
            there = [folder.is_dir() for folder in own]
        status = running._triton.supervisor.returncode
        assert own
        if there == [True] and status in (0, 256 - signal.SIGKILL):
            break
    assert there == [True] and status in (0, 256 - signal.SIGKILL)
    assert not own.pop().exists()


def test_requests_in_flight_are_answered_before_the_end_and_no_others(tmp_path):
    toy.place(tmp_path / "repository", toy.folder(tmp_path / "engine", sleep_s=1.5), "slow")
    with ThreadPoolExecutor() as threads, Server(tmp_path / "repository", tmp_path, ["slow"], grace_s=20.0) as running:
        asked = threads.submit(Client(running.url, "slow").infer, toy.feed(2, 8))
        time.sleep(0.5)
        ending = threads.submit(running.close)
        time.sleep(0.3)
        with pytest.raises(MachineError, match="Triton has ended, or is starting"):
            Client(running.url, "slow").infer(toy.feed(2, 8))
        assert asked.result().shape == (2, 3)
        ending.result()
    assert running._triton.supervisor.returncode == 0


def test_the_end_does_not_wait_for_connections_that_are_idle(toy_repository, tmp_path):
    with Server(toy_repository, tmp_path, ["single"], grace_s=20.0) as running, Client(running.url, "single") as client:
        client.infer(toy.feed(1, 8))
        running.close()
    asked_each_second = running.log.read_text().count("HTTP service connections")
    assert asked_each_second <= 1  # Triton may have counted before the front had closed it; it waits four seconds else


def test_of_two_folders_made_at_once_none_is_taken(toy_repository, tmp_path):
    with Server(toy_repository, tmp_path) as running:
        others: list[Path] = []
        loading = threading.Thread(target=running.load, args=["single"])
        loading.start()
        while loading.is_alive():
            others.append(Path(tempfile.mkdtemp(prefix="python_env_", dir="/tmp")))
            time.sleep(0.01)
        loading.join()
    try:
        assert others and all(folder.is_dir() for folder in others)
    finally:
        for folder in others:
            folder.rmdir()


def test_start_and_end_are_quick(toy_repository, tmp_path):
    started = time.monotonic()
    with Server(toy_repository, Path(tmp_path), ["single"]):
        pass
    assert time.monotonic() - started < 10


def test_the_log_of_a_crash_is_quoted_by_its_reason(tmp_path):
    path = tmp_path / "log"
    frames = "\n".join(f" {number}# 0x00007F91B7C5A050 in libc.so.6" for number in range(30))
    path.write_text(
        f'I1128 04:04:50 1 "loading"\nterminate called\n  what(): lock_exception\nSignal (6) received.\n{frames}\n'
    )
    assert log.quote(path) == "  terminate called\n    what(): lock_exception\n  Signal (6) received."


def test_a_server_that_crashes_as_it_loads_is_started_again_once(tmp_path, caplog):
    for name, times in {"fine": 0, "once": 1, "always": 9}.items():
        toy.place(tmp_path / "repository", toy.folder(tmp_path / name, aborts=times), name)
    with Server(tmp_path / "repository", tmp_path / "logs", ["fine", "once"]) as server:
        assert "It is started again, and the model loaded once more" in caplog.text
        for name in ("fine", "once"):
            with Client(server.url, name) as client:
                client.infer({"input_ids": np.ones((1, 2), np.int64), "attention_mask": np.ones((1, 2), np.int64)})
        with pytest.raises(MachineError, match=r"model 'always': Triton server on .* load it"):
            server.load("always")
