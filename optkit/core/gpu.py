"""What NVIDIA GPUs this machine has, by the driver's own account (NVML), without starting CUDA."""

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

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
    """Newest CUDA that the driver knows."""

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


def gpus() -> tuple[Gpu, ...]:
    """The cards that this process may use, in NVML's order; empty where there is none or no driver.

    `CUDA_VISIBLE_DEVICES` is heeded where it lists numbers, or nothing.
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
        return tuple(_gpu(pynvml, number) for number in _visible(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError:
        return ()
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _visible(count: int) -> list[int]:
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None or not all(part.strip().lstrip("-").isdigit() for part in listed.split(",") if part.strip()):
        return list(range(count))
    numbers = [int(part) for part in listed.split(",") if part.strip()]
    return [number for number in numbers if 0 <= number < count]


def _gpu(nvml: Any, number: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(number)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    cuda = nvml.nvmlSystemGetCudaDriverVersion()  # 13000 for 13.0
    return Gpu(
        name=nvml.nvmlDeviceGetName(handle),
        capability=tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle)),
        memory_bytes=memory.total,
        free_bytes=memory.free,
        driver=nvml.nvmlSystemGetDriverVersion(),
        cuda=(cuda // 1000, cuda % 1000 // 10),
    )
