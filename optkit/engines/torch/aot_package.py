"""Loads a package of AOTInductor from a folder that it is unpacked into, which is gone with the engine.

PyTorch's own way from the file unpacks into `/tmp`, whatever `TMPDIR` says, and leaves that there wherever a process ends
without taking its objects apart, as a server's do: as much as the model for each start. And it maps a damaged library into
memory, which ends the process.
"""

import weakref
import zipfile
import zlib
from contextlib import ExitStack
from pathlib import Path

import torch
from torch.export.pt2_archive._package import AOTICompiledModel
from torch.utils import _pytree as pytree

from optkit.core import atomic, temporary
from optkit.core.errors import InputError

_TAKES_FOLDERS = "2.13"
"""The first version of PyTorch that loads an unpacked package; earlier ones unpack the file by themselves."""


def loaded(path: Path, inputs: int, single_threaded: bool) -> AOTICompiledModel:
    """Load a package.

    Args:
        path: of `model.pt2`.
        inputs: number of tensors that it has to take.
        single_threaded: whether it runs without locks, as recording it as a CUDA graph wants.

    Returns:
        Function of tensors to the output.

    Raises:
        InputError: no package, a damaged one, or one of something else.
        MachineError: no room to unpack it.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(temporary.folder("optkit-package"))
        _unpack(path, folder)
        place = folder if torch.__version__ >= _TAKES_FOLDERS else path
        try:
            loader = torch._C._aoti.AOTIModelPackageLoader(str(place), "model", single_threaded, 1, -1)  # type: ignore[attr-defined]
            found = pytree.treespec_loads(loader.get_call_spec()[0]).num_leaves
        except RuntimeError as error:
            raise _refusal(path, f"PyTorch cannot load it: {str(error).strip().splitlines()[0]}") from error
        if found != inputs:
            raise _refusal(path, f"it takes {found} tensors, expected {inputs}")
        package = AOTICompiledModel(loader)
        weakref.finalize(package, stack.pop_all().close)
        return package


def _unpack(path: Path, folder: Path) -> None:
    """Unpack every file, and compare it with its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
    except FileNotFoundError as error:
        raise _refusal(path, "there is no such file") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise _refusal(path, f"it is damaged or no package: {error}") from error
    except OSError as error:
        raise atomic.disk_error(folder, error) from error


def _refusal(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path}: expected what AOTInductor compiled for this engine, found that {reason}. Build the engine again"
    )
