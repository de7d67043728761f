"""What NVIDIA GPUs this process may use, in CUDA's order and by the driver's own account, without starting CUDA in it."""

import json
import logging
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from optkit.core import cuda_probe

log = logging.getLogger(__name__)
_PROBE_S = 60.0
OLDEST_DRIVER = {12: 525, 13: 580}
"""Oldest driver for all minor versions of CUDA, by its major version (CUDA Toolkit release notes, table 2)."""


@dataclass(frozen=True)
class Gpu:
    """One card."""

    name: str
    capability: tuple[int, int]
    """Compute capability, such as (8, 0) for an A100."""
    memory_bytes: int
    free_bytes: int
    driver: str
    """Version of the driver, such as "580.65.06"."""
    cuda: tuple[int, int]
    """Newest CUDA that the driver's library knows: that of `cuda-compat` where it is installed."""
    uuid: str = ""
    """CUDA's identifier, of the card or of the MIG slice of it that the process has."""

    @property
    def has_int8_tensor_cores(self) -> bool:
        """Whether tensor cores compute INT8: from Turing on; Volta multiplies INT8 outside of them."""
        return self.capability >= (7, 5)

    @property
    def has_sparse_tensor_cores(self) -> bool:
        """Whether tensor cores skip the zeros of 2:4 weights: from Ampere on."""
        return self.capability >= (8, 0)

    @property
    def has_bf16(self) -> bool:
        """Whether the card computes in bf16: from Ampere on."""
        return self.capability >= (8, 0)

    @property
    def has_fp8(self) -> bool:
        """Whether tensor cores compute FP8: from Ada on."""
        return self.capability >= (8, 9)


def gpus() -> tuple[Gpu, ...]:
    """The cards that this process may use, the first one first; empty where there is none or no driver.

    Order, `CUDA_VISIBLE_DEVICES` (numbers, UUIDs, MIG slices) and the version of CUDA are CUDA's own account: NVML counts
    cards in another order. What is free at the moment is NVML's, asked by UUID.
    """
    try:
        import pynvml  # nvidia-ml-py
    except ModuleNotFoundError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        return _gpus(pynvml, _cuda_devices())
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


@cache
def _cuda_devices() -> dict[str, Any]:
    """What `cuda_probe` finds, in a process of its own, or in this one where Python cannot be started, as in a server."""
    asked = [sys.executable, "-I", cuda_probe.__file__]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=_PROBE_S, check=True)
        found = dict(json.loads(done.stdout))
    except (OSError, ValueError, subprocess.SubprocessError):
        found = cuda_probe.probe()
    if found["reason"]:
        log.warning("there is an NVIDIA driver, and no card for this process: %s", found["reason"])
    return found


def _gpus(nvml: Any, found: dict[str, Any]) -> tuple[Gpu, ...]:
    """The devices that CUDA found, each with what NVML knows of it.

    Args:
        nvml: NVML's Python module, started.
        found: what `cuda_probe` found.
    """
    version = found["version"]
    return tuple(
        Gpu(
            name=device["name"],
            capability=(device["capability"][0], device["capability"][1]),
            memory_bytes=device["memory_bytes"],
            free_bytes=_free_bytes(nvml, device),
            driver=nvml.nvmlSystemGetDriverVersion(),
            cuda=(version // 1000, version % 1000 // 10),
            uuid=device["uuid"],
        )
        for device in found["devices"]
    )


def _free_bytes(nvml: Any, device: dict[str, Any]) -> int:
    """Free memory of a card or MIG slice; all of it where NVML does not know."""
    for kind in ("GPU", "MIG"):
        with suppress(nvml.NVMLError):
            return int(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByUUID(f"{kind}-{device['uuid']}")).free)
    return int(device["memory_bytes"])
