"""`make test-gpu` fails where there is no GPU."""

import subprocess
import sys

import pytest

from optkit.engines.tensorrt.engine import RUNTIME as TENSORRT

pytestmark = pytest.mark.slow


@pytest.mark.skipif(TENSORRT.runs_here(), reason="there is a GPU: its tests run")
def test_a_run_of_the_gpus_tests_that_skips_all_of_them_fails():
    asked = [sys.executable, "-m", "pytest", "-n", "0", "-q", "tests/gpu"]
    done = subprocess.run([*asked, "-m", "gpu"], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "every test of the GPU was skipped" in done.stdout
    among_others = subprocess.run([*asked, "-m", "gpu or doors"], capture_output=True, text=True, check=False)
    assert among_others.returncode == 0, among_others.stdout + among_others.stderr
