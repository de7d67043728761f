"""What `make demo` says of the machine, and of what it found."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from tests.report.test_table import BASELINE, INT8

DEMO = Path(__file__).parents[1] / "examples" / "demo.py"


@pytest.fixture
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (("avx2", "avx512_vnni", "avx512_bf16"), "has instructions for INT8 (avx512_vnni): INT8 should win at every batch"),
        (("avx2", "avx_vnni"), "(avx_vnni), and no 16-bit engine to compare with: INT8 should win"),
        (("avx2",), "whose fast products would saturate, so that exact ones are taken. It can show what quantization costs"),
        ((), "This CPU has no instructions like VNNI or AMX, for INT8. It can show what quantization costs"),
    ],
)
def test_what_the_machine_can_show(
    demo: ModuleType, features: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "cpu_features", lambda: features)
    monkeypatch.setattr(demo, "int8_saturates", lambda: features == ("avx2",))
    assert said in " ".join(demo.expectation())


def test_the_last_five_lines(demo: ModuleType) -> None:
    best = replace(INT8, delta=-0.3, delta_ci95=[-0.9, 0.3], examples=2000)
    lines = demo.summary(best, BASELINE, Path("model_repository/demo_qat_gelu10/1"))
    assert lines == [
        "best:    qat_gelu10, INT8 by openvino, the fastest that passed its gate",
        "faster:  2.00/2.50 times FP32 at batch 1/8, 1.50/1.25 times this CPU's 16 bits; 3.8 times smaller (2.6 MB)",
        "cost:    -0.30 [-0.90, +0.30] points of accuracy, from 95.25, on 2,000 examples",
        "served:  model_repository/demo_qat_gelu10/1, live with optkit serve: "
        "http://127.0.0.1:8000/v2/models/demo_qat_gelu10",
        "next:    optkit run ptq_int8 qat_gelu10 --task classification --data DIR --model MODEL",
    ]
    assert "16 bits" not in demo.summary(replace(best, speedup_vs_16bit=None), BASELINE, Path("m/1"))[1]


@pytest.mark.slow
def test_ctrl_c_is_the_commands_to_answer(tmp_path: Path) -> None:
    """The command ends in order, and its status is the demo's."""
    ends_late = (
        "import signal, sys, time; signal.signal(2, lambda *_: (time.sleep(1), print('kept', flush=True), sys.exit(130)))"
    )
    script = f"""
import runpy, subprocess, sys
demo = runpy.run_path({str(DEMO)!r})
start = subprocess.Popen
def instead(command, **options):
    code = "{ends_late}; print('ready', flush=True); time.sleep(60)"
    return start([sys.executable, "-c", code], **options)
subprocess.Popen = instead
demo["optkit"]("run", may_fail=True)
"""
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "ready":
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and out.strip() == "kept" and "Traceback" not in err
