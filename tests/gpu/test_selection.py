"""`make test-gpu` fails where there is no GPU."""

import subprocess
import sys

import pytest

from optkit.engines.tensorrt.engine import RUNTIME as TENSORRT

pytestmark = pytest.mark.slow


@pytest.mark.skipif(TENSORRT.runs_here(), reason="there is a GPU: its tests run")
def test_a_run_of_the_gpus_tests_that_skips_all_of_them_fails():
    asked = ["-n", "0", "-q", "tests/gpu", "-m"]
    code = f"import pytest; print([int(pytest.main([*{asked}, chosen])) for chosen in ('gpu', 'gpu or doors')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[1, 0]", done.stdout + done.stderr
    assert done.stdout.count("every test of the GPU was skipped") == 1
