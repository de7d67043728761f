"""The GPU's benchmarks say what is wrong with their arguments before they begin."""

import runpy
from pathlib import Path

import pytest

from optkit.core.gpu import gpus
from optkit.engines.tensorrt import library

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.slow


def said(name, arguments, monkeypatch, capsys):
    """What a benchmark says of its arguments, which are wrong."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr("sys.argv", [name, *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
    assert end.value.code == 2
    return capsys.readouterr().err


@pytest.mark.skipif(library.installed_version() is None, reason=library.INSTALL_BUILDER)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shapes", "8"], "'8': expected BATCHxTOKENS, such as 8x128"),
        (["--shapes", "8x128x2"], "'8x128x2': expected BATCHxTOKENS"),
        (["--shapes", "0x128"], "'0x128': expected BATCHxTOKENS"),
        (["--layers", "0"], "'0': expected a whole number from 1 on"),
        (["--rounds", "-1"], "'-1': expected a whole number from 1 on"),
        (["--models", "huge"], "invalid choice: 'huge'"),
        (["--engines", "int4"], "invalid choice: 'int4'"),
    ],
)
def test_tensorrts(arguments, message, monkeypatch, capsys):
    assert message in said("gpu.py", arguments, monkeypatch, capsys)


def test_the_engine_torchs(tmp_path, monkeypatch, capsys):
    def told(*arguments):
        return said("torch_gpu.py", arguments, monkeypatch, capsys)

    assert "invalid choice: 'huge'" in told("hollow", str(tmp_path), "--models", "huge")
    asked = ["run", str(tmp_path), "--models", "minilm", "--kinds"]
    assert "holds no minilm-float.onnx, minilm-int8.onnx; write them: torch_gpu.py hollow" in told(*asked, "fp16", "fp8")
    if not gpus():
        (tmp_path / "minilm-float.onnx").touch()
        assert "this machine has no NVIDIA GPU" in told(*asked, "fp16")
