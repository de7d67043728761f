"""The main commands, for real, in a network of their own and with an empty home: no look-up, no file but optkit's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from optkit.models.loading import LoadedModel

from ..conftest import saved

ALONE = Path(__file__).with_name("alone.py")
COMMANDS = """
import runpy, sys

def optkit(line, *texts, ends=(0,)):
    sys.argv = ["optkit", *line.split(), *texts]
    try:
        runpy.run_module("optkit", run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code or 0
    assert status in ends, f"{line}: {status}"

optkit("doctor --model model", ends=(0, 1))
optkit("run baseline_fp32 ptq_int8 --task classification --data data --model model --name tiny --seconds 0.2", ends=(0, 1))
optkit("compare --task classification --format html --out compared.html --plots plots")
optkit("publish ptq_int8 --task classification --force --why test")
optkit("list")
optkit("verify")
optkit("ask tiny_ptq_int8 --serve", "a lovely film")
"""
"""One process runs them all, as each would import the same."""
OWN = {".cache/optkit"}
pytestmark = [pytest.mark.server, pytest.mark.slow]


def alone(report: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a network of its own; skips where this user may not have one."""
    namespaces = ["unshare", "--map-root-user", "--net"]
    try:
        subprocess.run([*namespaces, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network of its own on this machine: {error}")
    return subprocess.run(
        [*namespaces, sys.executable, str(ALONE), str(report), *command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
        capture_output=True,
        text=True,
        cwd=report.parent,
    )


def test_a_look_up_would_be_seen(tmp_path: Path) -> None:
    report = tmp_path / "report"
    alone(report, sys.executable, "-c", "import socket\ntry: socket.getaddrinfo('example.org', 80)\nexcept OSError: pass")
    assert "example" in report.read_text()


def test_the_main_commands_ask_nobody_and_store_nothing_elsewhere(
    tmp_path: Path, tiny_data: Path, tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tiny_model, tmp_path / "model")
    (tmp_path / "data").symlink_to(tiny_data)
    home, scratch, report = tmp_path / "home", tmp_path / "scratch", tmp_path / "report"
    home.mkdir()
    scratch.mkdir()
    for name in ("XDG_CACHE_HOME", "HF_HUB_OFFLINE", "HF_HOME", "CI"):  # none of which a user needs
        monkeypatch.delenv(name, raising=False)
    given = {path.name for path in tmp_path.iterdir()}
    done = alone(report, sys.executable, "-c", COMMANDS, HOME=str(home), TMPDIR=str(scratch))
    assert done.returncode == 0, done.stderr
    assert "good" in done.stdout
    assert report.read_text() == ""
    assert {path.relative_to(home).as_posix() for path in home.glob("*/*")} == OWN, list(home.rglob("*"))
    assert not [path for path in home.iterdir() if path.is_file()]
    assert not list(scratch.iterdir())
    made = {path.name for path in tmp_path.iterdir()} - given
    assert made == {"report", "checkpoints", "model_repository", "compared.html", "plots"}
