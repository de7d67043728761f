"""Plans of another version, another card or an old driver are refused with the fix; and one built without a GPU always."""

import shutil
from dataclasses import replace

import pytest

from optkit.core.errors import InputError, MachineError
from optkit.core.gpu import Gpu
from optkit.engines import registry as engines
from optkit.engines.record import read_record
from optkit.engines.tensorrt import library
from optkit.engines.tensorrt.compatibility import check_driver, check_gpu, check_machine, check_version
from optkit.engines.tensorrt.engine import RUNTIME as TENSORRT
from optkit.engines.tensorrt.profiles import Options
from optkit.engines.tensorrt.runner import profile_for

pytestmark = pytest.mark.slow

A100 = Gpu("A100", (8, 0), 80 << 30, 79 << 30, "580.65.06", (13, 0))
H100 = Gpu("H100", (9, 0), 80 << 30, 79 << 30, "580.65.06", (13, 0))
T4 = Gpu("T4", (7, 5), 16 << 30, 15 << 30, "535.104.05", (12, 2))
RECORD = {
    "runtime_version": "11.1.0.106",
    "offline": False,
    "gpu": "A100",
    "capability": [8, 0],
    "cuda": 13,
    "settings": {"version_compatible": False, "hardware": "none"},
}


@pytest.fixture(scope="module")
def built(exported, cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    TENSORRT.build(exported()[1], "fp16", folder, options=Options(timing_cache=cache))
    return folder


def test_the_folder_says_what_it_holds(built):
    record = read_record(built)
    assert (record["kind"], record["precision"], record["variant"]) == ("tensorrt", "fp16", "fp16")
    assert record["settings"]["sparse"] is False
    assert record["profiles"] == [{name: [[1, 1], [8, 32], [64, 32]] for name in record["inputs"]}]
    assert TENSORRT.stored_evidence(built)["gemm_precisions"] == {"fp16": 14}
    assert "Engine generation completed" in (built / "build.log").read_text()


def test_what_was_built_without_a_gpu_is_not_loaded(built):
    if not read_record(built)["offline"]:
        pytest.skip("it was built on a GPU")
    with pytest.raises(MachineError, match=r"was built without a GPU, by TensorRT for RTX.*build it there"):
        engines.load(built)


def test_a_plan_needs_the_tensorrt_package(built):
    if not library.is_offline():
        pytest.skip("the tensorrt package is installed")
    with pytest.raises(MachineError, match=r"needs TensorRT 11\.1\.0\.106\. Run: pip install"):
        check_machine(built, RECORD)


def test_a_plan_of_another_version(tmp_path):
    check_version(tmp_path, RECORD, "11.1.0.106")
    for other in ("11.2.1.9", "10.16.0.1"):
        with pytest.raises(
            MachineError, match=r"built by TensorRT 11\.1\.0\.106, and .* is installed.*--version-compatible"
        ):
            check_version(tmp_path, RECORD, other)


def test_a_version_compatible_plan_runs_on_newer_versions_only(tmp_path):
    record = {**RECORD, "settings": {"version_compatible": True, "hardware": "none"}}
    check_version(tmp_path, record, "11.2.1.9")
    with pytest.raises(MachineError, match=r"and 11\.0\.0\.1 is installed"):
        check_version(tmp_path, record, "11.0.0.1")


def test_a_plan_for_another_card(tmp_path):
    check_gpu(tmp_path, RECORD, A100)
    with pytest.raises(MachineError, match=r"built on A100 \(compute capability 8\.0\), and this is H100 \(9\.0\)\. Build"):
        check_gpu(tmp_path, RECORD, H100)
    anywhere = {**RECORD, "settings": {"version_compatible": False, "hardware": "ampere_plus"}}
    check_gpu(tmp_path, anywhere, H100)
    with pytest.raises(MachineError, match=r"this is T4 \(7\.5\)"):
        check_gpu(tmp_path, anywhere, T4)


def test_a_driver_that_is_too_old():
    check_driver(A100, 13)
    check_driver(T4, 12)
    with pytest.raises(MachineError, match=r"T4 has driver 535.* CUDA up to 12\.2.*needs driver 580.*tensorrt-cu12"):
        check_driver(T4, 13)
    check_driver(replace(T4, cuda=(13, 0)), 13)  # the older driver with cuda-compat


def test_a_shape_finds_its_profile():
    profiles = [{"input_ids": [[1, 1], [1, 64], [1, 128]]}, {"input_ids": [[1, 1], [8, 64], [64, 128]]}]
    assert [profile_for(profiles, shape) for shape in ((1, 128), (2, 1), (64, 128))] == [0, 1, 1]
    with pytest.raises(InputError, match=r"takes shapes \[batch, sequence\] of \[1, 1\] to \[1, 128\]; .*found \[65, 1\]"):
        profile_for(profiles, (65, 1))


@pytest.mark.parametrize(("precision", "variant"), [("fp8", None), ("int8", "fp8"), ("fp16", "fp16-attention")])
def test_what_cannot_be_built_is_refused_before_anything_is_written(exported, tmp_path, precision, variant):
    with pytest.raises(InputError, match="TensorRT cannot build precision"):
        TENSORRT.build(exported()[1], precision, tmp_path, variant)
    assert not list(tmp_path.iterdir())


def test_a_build_that_fails_leaves_nothing(exported, tmp_path):
    with pytest.raises(InputError, match="positions for 32"):
        TENSORRT.build(exported()[1], "fp16", tmp_path, options=Options(sequence="1,8,99"))
    assert not list(tmp_path.iterdir())


def test_a_sparse_graph_takes_the_placement_that_sparse_kernels_need(exported, tmp_path, monkeypatch):
    from optkit.graph.tensorrt import variants

    assert TENSORRT.preferred(exported(is_quantised=True)[1], "int8", Options()) == "fp16"
    monkeypatch.setattr(variants, "is_sparse", lambda graph: True)
    assert TENSORRT.preferred(exported(is_quantised=True)[1], "int8", Options()) == "fp16-outputs"
    assert TENSORRT.preferred(exported()[1], "fp32", Options()) == "fp32"
    assert TENSORRT.preferred(exported(is_quantised=True, weights="per_tensor")[1], "int8", Options()) == "int8-out-all"


def test_weights_with_one_scale_each_take_the_placement_whose_gemms_write_int8(exported):
    assert TENSORRT.preferred(exported(is_quantised=True, weights="per_tensor")[1], "int8", Options()) == "int8-out"


def test_a_plan_beside_it_is_not_overwritten(built, exported, tmp_path):
    shutil.copytree(built, tmp_path / "copy")
    with pytest.raises(InputError, match="engines are built into an empty folder"):
        TENSORRT.build(exported()[1], "fp16", tmp_path / "copy")
