"""Location of the server: the `tritonserver` of the `nvidia-pytriton` wheel, its libraries and its Python backend."""

import importlib.util
import os
import shutil
import sys
import sysconfig
from ctypes.util import find_library
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from optkit.core import temporary
from optkit.core.atomic import remedy
from optkit.core.cache_folder import cache_folder
from optkit.core.errors import MachineError
from optkit.core.plugins import import_folders

WHEEL = "nvidia-pytriton"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
STUB = "triton_python_backend_stub"
IMPORT_FOLDERS = "OPTKIT_BACKEND_PYTHONPATH"
"""Variable that a version's `model.py` reads: the backend's interpreter is isolated and heeds no PYTHONPATH."""


@dataclass(frozen=True)
class Installation:
    """A server that can be started."""

    binary: Path
    backends: Path
    """What `--backend-directory` takes."""
    caches: Path
    """What `--cache-directory` takes."""
    environment: dict[str, str]
    """Variables for the server process alone."""


def find() -> Installation:
    """The server of this environment.

    Raises:
        MachineError: the wheel, its stub for this Python or Python's shared library is missing, or NumPy is too new.
    """
    _require_numpy_1()
    wheel = _wheel_folder()
    environment = {
        "LD_LIBRARY_PATH": os.pathsep.join([*_python_library_folder(), str(wheel.parent / "nvidia_pytriton.libs")]),
        # Triton imports models from the repository, which holds what was published and nothing else.
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUTF8": "1",  # whatever letters the folders have that it imports from
        IMPORT_FOLDERS: os.pathsep.join(_import_folders()),
        # The embedded interpreter finds its virtual environment through the first `python3` of PATH.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }
    triton = wheel / "tritonserver"
    return Installation(triton / "bin/tritonserver", _backends(triton), triton / "caches", environment)


def _wheel_folder() -> Path:
    """The package's folder, found without importing the package."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise MachineError(
            f"Triton server: the package {WHEEL} is not installed in {sys.prefix}. "
            f"Install it: pip install 'optkit[cpu]' (or: pip install {WHEEL}==0.7.0)"
        )
    return Path(spec.submodule_search_locations[0])


def _require_numpy_1() -> None:
    """Under NumPy 2 the wheel's Python backend answers with empty outputs and no error."""
    found = version("numpy")
    if int(found.split(".")[0]) >= 2:
        raise MachineError(
            f"Triton server: found NumPy {found} in {sys.prefix}, but the Python backend of {WHEEL} answers with empty "
            "outputs under NumPy 2. Install an older one: pip install 'numpy<2'"
        )


def _python_library_folder() -> list[str]:
    """Folder of the shared libpython that belongs to this interpreter; nothing where the system's own is meant."""
    name = f"libpython{PYTHON}.so.1.0"
    folders = [Path(sys.base_prefix, "lib"), Path(sysconfig.get_config_var("LIBDIR") or sys.base_prefix)]
    for folder in folders:
        if (folder / name).exists():
            return [str(folder)]
    if find_library(f"python{PYTHON}"):
        return []
    raise MachineError(
        f"Triton server: its Python backend needs {name}, which is neither in {folders[0]} nor among the system's "
        f"libraries. Install it (Debian, Ubuntu: apt-get install libpython{PYTHON}) or use a Python built with "
        "--enable-shared"
    )


def _import_folders() -> list[str]:
    """What the backend's interpreter imports from: the folder optkit lies in, then this environment's packages."""
    source = str(Path(__file__).parents[2])
    others = import_folders(("optkit.tasks", "optkit.engines", "optkit.families"))
    return list(dict.fromkeys([source, *others, sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]))


def _backends(tritonserver: Path) -> Path:
    """A backends folder with the stub for this Python, made once for each version of the wheel."""
    stub = tritonserver / "python_backend_stubs" / PYTHON / STUB
    if not stub.exists():
        have = ", ".join(sorted(folder.name for folder in stub.parent.parent.glob("3.*")))
        raise MachineError(
            f"Triton server: {WHEEL} {version(WHEEL)} has no Python backend for Python {PYTHON}, only for {have}. "
            "Use one of those"
        )
    backends = cache_folder() / f"triton-{version(WHEEL)}-python{PYTHON}"
    files = [*tritonserver.glob("backends/python/*.*"), stub]
    if not _complete(backends, files):
        _make(backends, files)
    return backends


def _complete(backends: Path, files: list[Path]) -> bool:
    """Whether every file is there in full: somebody may have tidied up in the cache."""
    found = {path.name: path.stat().st_size for path in backends.glob("python/*")}
    return all(found.get(path.name) == path.stat().st_size for path in files)


def _make(backends: Path, files: list[Path]) -> None:
    """Stage the folder beside its place and rename it there; another process may do the same at the same time."""
    try:
        backends.parent.mkdir(parents=True, exist_ok=True)
        with temporary.folder(".staging", backends.parent) as staging:
            staged = staging / "backends/python"
            staged.mkdir(parents=True)
            for path in files:
                shutil.copy2(path, staged)
            if backends.exists() and not _complete(backends, files):
                backends.rename(staging / "replaced")
            staged.parent.rename(backends)
    except OSError as error:
        if not _complete(backends, files):
            raise MachineError(
                f"Triton server: cannot copy its Python backend to {backends}: {error.strerror}. "
                f"{remedy(error)}: by XDG_CACHE_HOME"
            ) from error
