"""A deadline passes with time, and not while its process is stopped."""

import subprocess
import sys
import time
from signal import SIGCONT, SIGSTOP

import pytest

from optkit.core.patience import Patience

CODE = """
import time
from optkit.core.patience import Patience
patience, looks = Patience(2.0), 0
print("waiting", flush=True)
while not patience.is_over():
    time.sleep(0.1)
    looks += 1
print(looks)
"""


@pytest.mark.slow
def test_it_is_over_after_its_time() -> None:
    patience, started = Patience(0.3), time.monotonic()
    while not patience.is_over():
        time.sleep(0.01)
    assert 0.3 <= time.monotonic() - started < 0.6


@pytest.mark.slow
def test_the_time_that_a_process_was_stopped_counts_for_a_second_at_most() -> None:
    with subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "waiting\n"
        process.send_signal(SIGSTOP)
        time.sleep(4)
        process.send_signal(SIGCONT)
        assert int(process.stdout.read()) >= 5
