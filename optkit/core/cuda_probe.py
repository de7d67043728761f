"""Prints the cards that CUDA gives this process, in CUDA's order, as JSON; started as a program of its own.

A process that has asked CUDA can fork no child that uses it, so the question goes to another process. It uses the driver's
library alone, `libcuda.so.1`: that of NVIDIA's package `cuda-compat` where the loader finds it first.
"""

import ctypes
import json
import uuid
from typing import Any

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_NONE = "CUDA finds no device; CUDA_VISIBLE_DEVICES may hide them"
_MEANINGS = {100: f": {_NONE}", 803: ": driver and libcuda do not fit", 804: ": cuda-compat does not support this card"}


def probe(name: str = "libcuda.so.1") -> dict[str, Any]:
    """Version of CUDA that the driver's library knows (13000 for 13.0), and uuid, name, compute capability and bytes of
    memory of each device. Where there is no library, or it finds no device, there are none, and `reason` says why."""
    try:
        cuda = ctypes.CDLL(name)
    except OSError as error:
        return {"version": 0, "devices": [], "reason": str(error)}
    version, count = ctypes.c_int(), ctypes.c_int()
    if (
        failed := cuda.cuInit(0)
        or cuda.cuDriverGetVersion(ctypes.byref(version))
        or cuda.cuDeviceGetCount(ctypes.byref(count))
    ):
        return {"version": 0, "devices": [], "reason": f"error {failed} of {name}{_MEANINGS.get(failed, '')}"}
    devices = [_device(cuda, number) for number in range(count.value)]
    return {"version": version.value, "devices": devices, "reason": "" if devices else _NONE}


def _device(cuda: ctypes.CDLL, number: int) -> dict[str, Any]:
    handle, major, minor, total = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    identity, name = (ctypes.c_ubyte * 16)(), ctypes.create_string_buffer(128)
    done = [
        cuda.cuDeviceGet(ctypes.byref(handle), number),
        cuda.cuDeviceGetUuid_v2(identity, handle),  # of the MIG slice, where the device is one
        cuda.cuDeviceGetName(name, len(name), handle),
        cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, handle),
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, handle),
        cuda.cuDeviceTotalMem_v2(ctypes.byref(total), handle),
    ]
    if any(done):
        raise SystemExit(f"libcuda: error {next(filter(None, done))} for device {number}")
    return {
        "uuid": str(uuid.UUID(bytes=bytes(identity))),
        "name": name.value.decode(),
        "capability": [major.value, minor.value],
        "memory_bytes": total.value,
    }


if __name__ == "__main__":
    print(json.dumps(probe()))
