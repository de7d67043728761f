"""Import of TensorRT: the `tensorrt` package, or for building alone a builder that needs no GPU.

NVIDIA's `tensorrt` package is what builds and runs plans on a machine with a GPU. A machine without one cannot even
create its builder. There the wheels `tensorrt-cu13-bindings` (NVIDIA's own Python interface) and
`onnxruntime-ep-nv-tensorrt-rtx-cu13` (which carries the builder and the ONNX parser of TensorRT for RTX, with the same
entry points) build together: `pip install 'optkit[tensorrt-builder]'`. What they build shows whether TensorRT takes a
graph and what it makes of it; it is built without timing a single kernel, and is not meant to be served.
"""

import ctypes
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from types import ModuleType

from optkit.core import temporary
from optkit.core.errors import MachineError
from optkit.engines.tensorrt.empty_libraries import shared_library

BINDINGS, RTX = "tensorrt_bindings", "onnxruntime_ep_nv_tensorrt_rtx"
OLDEST = (10, 13)
"""The first version whose strongly typed networks take these graphs as they are."""
INSTALL = "pip install 'tensorrt-cu13>=10.13' (or tensorrt-cu12 for a driver of CUDA 12)"
INSTALL_BUILDER = "pip install 'optkit[tensorrt-builder]'"
_PACKAGES = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")


@cache
def load() -> ModuleType:
    """TensorRT's Python module, whichever of the two there is.

    Raises:
        MachineError: neither is installed, or TensorRT is older than `OLDEST`.
    """
    if importlib.util.find_spec("tensorrt") is not None:
        trt = importlib.import_module("tensorrt")
    elif has_offline_builder():
        trt = _offline()
    else:
        raise MachineError(
            f"TensorRT is not installed in {sys.prefix}. On a machine with a GPU: {INSTALL}. To build plans without "
            f"one, and see what TensorRT makes of a graph: {INSTALL_BUILDER}"
        )
    _check_version(trt.__version__)
    return trt


def _check_version(found: str) -> None:
    if tuple(int(part) for part in found.split(".")[:2]) < OLDEST:
        raise MachineError(
            f"TensorRT {found} is installed, expected {OLDEST[0]}.{OLDEST[1]} or newer: older ones do not take "
            f"strongly typed networks with INT8 and 16-bit parts as they are. Run: {INSTALL}"
        )


def installed_version() -> str | None:
    """TensorRT's version without importing it; that of the bindings where only the builder is there; else None."""
    names = [*_PACKAGES, *(["tensorrt-cu13-bindings"] if has_offline_builder() else [])]
    return next((version(name) for name in names if _is_installed(name)), None)


def is_offline() -> bool:
    """Whether what `load` gives builds without a GPU and runs nothing."""
    return importlib.util.find_spec("tensorrt") is None and has_offline_builder()


def cuda() -> int:
    """Major version of CUDA that the installed TensorRT is for: by its package's name, by what a plain `tensorrt` requires,
    and in NVIDIA's containers, whose TensorRT is no package, by what they say of themselves; else the newest."""
    for major in (13, 12):
        if any(_is_installed(f"tensorrt-cu{major}{part}") for part in ("", "-libs")):
            return major
    asked = " ".join(requires("tensorrt") or ()) if _is_installed("tensorrt") else ""
    told = re.search(r"tensorrt[-_]cu(\d+)", asked) or re.match(r"(\d+)\.", os.environ.get("CUDA_VERSION", ""))
    return int(told[1]) if told else 13


def _is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def has_offline_builder() -> bool:
    """Whether both wheels of the builder without a GPU are installed."""
    return all(importlib.util.find_spec(name) is not None for name in (BINDINGS, RTX))


def _offline() -> ModuleType:
    """The bindings over TensorRT for RTX."""
    spec = importlib.util.find_spec(RTX)
    if spec is None or not spec.submodule_search_locations:
        raise MachineError(f"{RTX} is not installed. Run: {INSTALL_BUILDER}")
    folder = Path(spec.submodule_search_locations[0])
    for name in ("libtensorrt_rtx", "libtensorrt_onnxparser_rtx"):
        found = sorted(folder.glob(f"{name}.so.*"))
        if not found:
            raise MachineError(f"{folder} holds no {name}.so. Install it again: {INSTALL_BUILDER}")
        ctypes.CDLL(str(found[-1]), mode=ctypes.RTLD_GLOBAL)
    major = version("tensorrt-cu13-bindings").split(".")[0]
    return bindings(major, {"nvinfer": (), "nvonnxparser": (), "nvinfer_plugin": ("initLibNvInferPlugins",)})


def bindings(major: str, functions: dict[str, Sequence[str]]) -> ModuleType:
    """Import the bindings with empty libraries in the place of TensorRT's own.

    Args:
        major: of the bindings' version, which is part of the libraries' names.
        functions: library (without `lib`) to the functions it has to define, since nothing else does.
    """
    with temporary.folder("optkit-tensorrt") as folder:
        for name, defined in functions.items():
            soname = f"lib{name}.so.{major}"
            path = folder / soname
            path.write_bytes(shared_library(soname, defined))
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        return importlib.import_module(BINDINGS)
