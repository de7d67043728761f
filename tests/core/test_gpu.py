"""Cards come in CUDA's order, with NVML's free memory by UUID, MIG slices too; without a driver there are none."""

import logging
import sys
from typing import ClassVar

import pytest

from optkit.core import cuda_probe, gpu
from optkit.engines.tensorrt.empty_libraries import shared_library

CUDA = {
    "version": 13020,
    "devices": [
        {"uuid": "fast", "name": "H200", "capability": [9, 0], "memory_bytes": 141},
        {"uuid": "slice", "name": "A100 MIG 1g.10gb", "capability": [8, 0], "memory_bytes": 10},
        {"uuid": "hidden", "name": "T4", "capability": [7, 5], "memory_bytes": 16},
    ],
    "reason": "",
}


class Nvml:
    """NVML as far as it is asked; it counts its cards in another order."""

    NVMLError = RuntimeError
    free: ClassVar = {"MIG-slice": 9, "GPU-fast": 140}

    def nvmlSystemGetDriverVersion(self):
        return "570.10"

    def nvmlDeviceGetHandleByUUID(self, identity):
        if identity not in self.free:
            raise RuntimeError("not found")
        return identity

    def nvmlDeviceGetMemoryInfo(self, handle):
        return type("Memory", (), {"free": self.free[handle]})


def test_order_and_version_are_cudas_and_free_memory_is_nvmls():
    found = gpu._gpus(Nvml(), CUDA)
    assert [(one.name, one.uuid, one.free_bytes) for one in found] == [
        ("H200", "fast", 140),
        ("A100 MIG 1g.10gb", "slice", 9),
        ("T4", "hidden", 16),  # which NVML does not know: all of it
    ]
    assert {(one.driver, one.cuda) for one in found} == {("570.10", (13, 2))}
    assert [one.capability for one in found] == [(9, 0), (8, 0), (7, 5)]


def test_a_driver_that_fails_and_one_that_is_not_there(tmp_path):
    assert cuda_probe.probe("libnone.so.1")["devices"] == []
    calls = ["cuInit", "cuDriverGetVersion", "cuDeviceGetCount"]
    (tmp_path / "libcuda.so.1").write_bytes(shared_library("libcuda.so.1", calls))  # each answers with error 1
    assert cuda_probe.probe(str(tmp_path / "libcuda.so.1"))["reason"].startswith("error 1 of ")


@pytest.mark.parametrize("executable", ["", "/bin/false", "/bin/true"])
def test_where_python_cannot_be_started_cuda_is_asked_here(monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setattr(cuda_probe, "probe", lambda: CUDA)
    gpu._cuda_devices.cache_clear()
    try:
        assert gpu._cuda_devices() is CUDA
    finally:
        gpu._cuda_devices.cache_clear()


def test_another_process_is_asked_where_python_can_be_started(monkeypatch):
    monkeypatch.setattr(cuda_probe, "probe", lambda: CUDA)
    gpu._cuda_devices.cache_clear()
    try:
        found = gpu._cuda_devices()
    finally:
        gpu._cuda_devices.cache_clear()
    assert found is not CUDA and set(found) == set(CUDA)


def test_no_card_is_told_with_its_reason(monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", "")
    monkeypatch.setattr(cuda_probe, "probe", lambda: {"version": 0, "devices": [], "reason": "error 804 of libcuda.so.1"})
    gpu._cuda_devices.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert gpu._cuda_devices()["devices"] == []
    gpu._cuda_devices.cache_clear()
    assert "no card for this process: error 804" in caplog.text
