"""The doctor tells what is there and how to get what is not; the preflight what TensorRT cannot do with a model."""

import importlib.metadata
import json

import pytest

from optkit.cli.app import main
from optkit.core.cpu import allowed_cores, cpu_features
from optkit.core.errors import InputError
from optkit.core.gpu import Gpu
from optkit.engines.tensorrt import library, model_check
from optkit.report import doctor
from tests.graph.conftest import exported  # noqa: F401

T4 = Gpu("Tesla T4", (7, 5), 16 << 30, 15 << 30, "535.104.05", (12, 2))
V100 = Gpu("V100", (7, 0), 16 << 30, 15 << 30, "580.65.06", (13, 0))
CONFIG = {"hidden_size": 384, "num_attention_heads": 12, "max_position_embeddings": 512}


def test_the_machine_as_it_is():
    parts = doctor.examine()
    assert list(parts) == ["CPU", "engines", "GPU", "TensorRT", "Triton"]
    found = {finding.name: finding for finding in parts["CPU"]}
    assert found["INT8"].fine == bool({"avx512_vnni", "avx_vnni", "amx_int8", "i8mm"} & set(cpu_features()))
    assert {finding.name for finding in parts["engines"] if finding.fine} == {"openvino", "onnxruntime", "torch"}


def test_an_engine_that_lacks_more_than_its_package(monkeypatch):
    monkeypatch.setenv("CXX", "nothing++")
    (found,) = [finding for finding in doctor.examine()["engines"] if finding.name == "torch"]
    assert found.found == importlib.metadata.version("torch") and not found.fine
    assert "this machine has no 'nothing++'. Install g++" in found.fix


def test_the_quota_of_a_container_is_told(tmp_path):
    assert (
        doctor._cores(tmp_path) == f"{allowed_cores()} for this process ({allowed_cores()} in its affinity mask, no quota)"
    )
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "mountinfo").write_text(f"31 23 0:28 / {tmp_path} rw - cgroup2 cgroup rw\n")
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert doctor._cores(tmp_path) == f"1 for this process ({allowed_cores()} in its affinity mask, a quota of 1.5)"


@pytest.mark.slow
def test_the_command_prints_every_finding_and_a_fix_for_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "gpus", lambda: ())
    with pytest.raises(SystemExit) as end:
        main(["doctor"])
    assert end.value.code in (0, None)
    text = capsys.readouterr().out
    assert "  --  card: none that CUDA gives this process\n        TensorRT's plans need an NVIDIA card" in text
    assert "  ok  openvino: " in text


def test_a_card_without_sparse_tensor_cores(monkeypatch):
    found = {finding.name: finding for finding in doctor._gpu([T4])}
    assert found["card"].found == "Tesla T4, compute capability 7.5, 15360 of 16384 MiB free"
    assert found["INT8 tensor cores"].fine and not found["2:4 tensor cores"].fine and not found["bf16"].fine
    assert "Ampere" in found["2:4 tensor cores"].fix
    assert not {f.name: f for f in doctor._gpu([V100])}["INT8 tensor cores"].fine


def test_a_driver_too_old_for_tensorrt(monkeypatch):
    monkeypatch.setattr(library, "is_offline", lambda: False)
    monkeypatch.setattr(library, "installed_version", lambda: "11.1.0.106")
    monkeypatch.setattr(library, "cuda", lambda: 13)
    (version, driver) = doctor._tensorrt((T4,))
    assert version.fine and not driver.fine
    assert "needs driver 580 or newer" in driver.fix


def test_without_tensorrt_both_ways_to_it_are_told(monkeypatch):
    monkeypatch.setattr(library, "installed_version", lambda: None)
    (finding,) = doctor._tensorrt(())
    assert not finding.fine and library.INSTALL in finding.fix and library.INSTALL_BUILDER in finding.fix


@pytest.mark.parametrize(
    ("hidden", "fine", "text"), [(384, True, "and in INT8"), (480, True, "INT8 attention is known to be fused for")]
)
def test_heads_that_are_fused(hidden, fine, text):
    head = model_check.of_config({**CONFIG, "hidden_size": hidden})[0]
    assert head.fine == fine and text in head.found


def test_a_head_that_is_not_fused_and_one_that_cannot_be():
    head = model_check.of_config({**CONFIG, "hidden_size": 12 * 26})[0]  # the 312 of TinyBERT
    assert not head.fine and head.found == "26 wide" and "multiple of 8" in head.fix
    with pytest.raises(InputError, match="hidden_size 385 is no multiple of num_attention_heads 12"):
        model_check.of_config({**CONFIG, "hidden_size": 385})
    with pytest.raises(InputError, match=r"config\.json: hidden_size is None, expected a whole number"):
        model_check.of_config({})


def test_the_longest_input():
    assert "no --sequence may be longer" in model_check.of_config(CONFIG)[1].found
    assert "known to be fused up to 512" in model_check.of_config({**CONFIG, "max_position_embeddings": 4096})[1].found


@pytest.mark.slow
def test_coverage_of_a_graph(exported):  # noqa: F811
    assert "none" in model_check.of_graph(exported()[1])[0].found
    (finding,) = model_check.of_graph(exported(is_quantised=True)[1])
    assert finding.fine and finding.found == "12 of 12 encoder GEMMs have both inputs quantised"


def test_a_models_folder(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(SystemExit):
        main(["doctor", "--model", str(tmp_path)])
    assert "  ok  attention head: 32 wide: fits fused attention in 16 bits and in INT8\n" in capsys.readouterr().out
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json: not JSON"):
        model_check.of_model(tmp_path)
    with pytest.raises(InputError, match=r"no config\.json in it"):
        model_check.of_model(tmp_path / "nowhere")


@pytest.mark.parametrize(("script", "said"), [("echo docker 28.1", "docker 28.1; nvcr.io"), ("exit 1", "no docker that")])
def test_a_docker_without_a_daemon_is_none(script, said, tmp_path, monkeypatch):
    (tmp_path / "docker").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert doctor.examine()["Triton"][1].found.startswith(said)
