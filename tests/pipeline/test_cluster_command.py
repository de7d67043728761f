"""`--cluster` on the command line: what does not answer is refused, and what is interrupted leaves nothing and goes on."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import psutil
import pytest

from optkit.core.errors import MachineError
from optkit.pipeline.cluster import connected
from optkit.pipeline.cluster_settings import ClusterSettings
from tests.conftest import main_ends
from tests.pipeline import test_cluster
from tests.pipeline.test_cluster import STEPS, free_port, steps

workshop = test_cluster.workshop


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever token this user has."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


def refused_within(address: str, seconds: float) -> str:
    """What is said of an address that is no cluster's."""
    begun = time.monotonic()
    with pytest.raises(MachineError) as refused, connected(ClusterSettings(address)):
        pass
    assert time.monotonic() - begun < seconds
    return str(refused.value)


@pytest.mark.slow
def test_an_address_that_does_not_answer_is_refused_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray  # takes its time

    # clusters of other tests on this machine are not to be found
    monkeypatch.setattr("ray._private.services._find_address_from_flag", lambda flag: set())
    monkeypatch.setattr("ray._private.utils.read_ray_address", lambda folder=None: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert "does not answer" in refused_within(f"ray://127.0.0.1:{free_port()}", 30)
    assert "Could not find any running Ray instance" in refused_within("auto", 30)
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    assert "does not answer" in refused_within("auto", 30)
    server = HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert "not Ray's client server" in refused_within(f"ray://127.0.0.1:{server.server_port}", 30)
    server.shutdown()
    assert not ray.is_initialized()


def arguments(workshop: Path, data: Path) -> list[str]:
    """`run` of the patient recipe on a cluster of its own."""
    given = ["run", str(workshop / "patient.py"), "--task", "classification", "--data", str(data)]
    given += ["--model", str(workshop / "model"), "--engine", "onnxruntime", "--seconds", "0.05", "--name", "patience"]
    return [*given, "--checkpoints", str(workshop / "command"), "--cluster", "local", "--train-cores", "1"]


def interrupted(workshop: Path, data: Path, temporary: str) -> None:
    """Start the command on one core, interrupt it in the midst of a training, and see that nothing is left."""
    asked = [sys.executable, "-m", "optkit", *arguments(workshop, data)]
    own = {**os.environ, "OPTKIT_TEST_STEP_S": "0.3", "TMPDIR": temporary}
    process = subprocess.Popen(asked, env=own, stderr=subprocess.PIPE, text=True)
    os.sched_setaffinity(process.pid, [min(os.sched_getaffinity(0))])  # a node of one core needs but one worker
    while len(steps(workshop)) < 15 and process.poll() is None:
        time.sleep(0.1)
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 130, said
    _, left = psutil.wait_procs(started, timeout=10)
    assert started and not left
    assert not [path for path in (workshop / "command").rglob(".*") if "unfinished" in path.name or "cluster" in path.name]
    assert not os.listdir(temporary)


@pytest.mark.slow
@pytest.mark.server
def test_an_interrupted_command_leaves_nothing_and_goes_on(
    workshop: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (workshop / "steps").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:  # Ray's sockets allow no long names
        interrupted(workshop, tiny_data, temporary)
        with monkeypatch.context() as patch:
            patch.setattr(tempfile, "tempdir", temporary)
            patch.setattr("optkit.pipeline.cluster.available_threads", lambda: 1)
            main_ends(arguments(workshop, tiny_data), 0)
    table, said = capfd.readouterr()
    assert "goes on after 10 steps" in said and len(steps(workshop)) < 15 + STEPS
    assert "measured on " in table and " patient " in table and "score patient, seed 0: done in" in said
