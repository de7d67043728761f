"""A process that is stopped while it waits for a server goes on as if nothing had been."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from optkit.serving.server import Server

from . import toy

pytestmark = [pytest.mark.server, pytest.mark.slow]
TIMEOUT_S, ANSWERS_AFTER_S, STOPPED_S = 4.0, 1.5, 7.0
CODE = f"""
import sys
import numpy as np
from optkit.serving.client import Client
feed = {{name: np.ones((1, 4), np.int64) for name in ("input_ids", "attention_mask")}}
with Client(sys.argv[1], "slow", timeout_s={TIMEOUT_S}) as client:
    client.metadata()
    print("asking", flush=True)
    print(client.infer_many([feed] * 3, concurrency=int(sys.argv[2]))[2].shape)
"""


@pytest.mark.parametrize("concurrency", [1, 3])
def test_an_answer_that_came_meanwhile_is_read(tmp_path: Path, concurrency: int) -> None:
    toy.place(tmp_path / "repository", toy.folder(tmp_path / "engine", sleep_s=ANSWERS_AFTER_S), "slow")
    with Server(tmp_path / "repository", tmp_path / "logs", ["slow"]) as server:
        command = [sys.executable, "-c", CODE, server.url, str(concurrency)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None and client.stderr is not None
            assert client.stdout.readline() == "asking\n"
            time.sleep(ANSWERS_AFTER_S / 3)
            client.send_signal(signal.SIGSTOP)
            time.sleep(STOPPED_S)
            client.send_signal(signal.SIGCONT)
            assert client.stdout.read() == "(1, 3)\n", client.stderr.read()
