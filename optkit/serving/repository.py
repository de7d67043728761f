"""Model repositories: `<model>/config.pbtxt`, `<model>/<version>/model.py` and `<model>/<version>/engine/`.

Everything is staged inside the repository and renamed into its place, so that a reader never sees half a model.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optkit.core import temporary
from optkit.core.atomic import refusal_behind, remedy
from optkit.core.errors import InputError, MachineError
from optkit.serving import config as configuration
from optkit.serving import install
from optkit.serving.config import ModelConfig

ENGINE = "engine"
ENGINE_FILE = "engine.json"
STAGING = ".staging"
BACKENDS = tuple(f"optkit.serving.backend.{name}" for name in ("model", "tokenizer", "answer"))
"""What runs inside the server, which imports nothing of it here."""


def place(repository: Path, engine_folder: Path, config: ModelConfig, version: int = 1, link: bool = False) -> Path:
    """Put an engine into a repository as a version of the model that `config` names; its configuration is replaced.

    Args:
        repository: the repository's folder; made if it does not exist.
        engine_folder: a folder with `engine.json`; its files are copied.
        config: what the server has to know, the model's name included.
        version: number of the version's folder, from 1.
        link: hard-link the files where the file system can: for scratch repositories, as a file that is overwritten
            in place later would change here too.

    Returns:
        The version's folder.

    Raises:
        InputError: the engine folder has no `engine.json`, or the version is less than 1 or taken.
        MachineError: the repository cannot be written; nothing is left behind.
    """
    model = Path(repository, config.name)
    _check(Path(engine_folder), model, version)
    with staging(repository, config.name, version) as staged:
        stage(staged, Path(engine_folder), config, version, link)
        _rename(staged, model, str(version))
    return model / str(version)


@contextmanager
def staging(repository: Path, name: str, version: int = 1) -> Iterator[Path]:
    """Yield the path, not made yet, to build a model's folder at before it is renamed: on the repository's file system.

    Raises:
        MachineError: the repository cannot be written; nothing is left behind.
    """
    try:
        Path(repository).mkdir(parents=True, exist_ok=True)
        with temporary.folder(STAGING, Path(repository)) as folder:
            yield folder / name
    except OSError as error:
        raise MachineError(
            f"model repository {repository}: cannot place version {version} of {name!r}: {_reason(error)}. "
            f"{remedy(refusal_behind(error) or error)}"
        ) from error


def model_py(module: str = "model") -> str:
    """The text of a version's `model.py`.

    Args:
        module: of `optkit.serving.backend`.
    """
    return f'''"""Runs what lies beside this file; the code is optkit's."""

import os
import sys

sys.path[1:1] = filter(None, os.environ.get("{install.IMPORT_FOLDERS}", "").split(os.pathsep))

from optkit.serving.backend.{module} import TritonPythonModel  # noqa: E402, F401
'''


def models(repository: Path) -> dict[str, tuple[int, ...]]:
    """Names of the models with their versions, both sorted; folders without `config.pbtxt` are no models."""
    found = {path.parent.name: versions(path.parent) for path in Path(repository).glob("[!.]*/config.pbtxt")}
    return dict(sorted(found.items()))


def versions(model: Path) -> tuple[int, ...]:
    """Version folders as Triton counts them: a number that does not start with 0."""
    names = [path.name for path in model.iterdir() if path.is_dir()]
    return tuple(sorted(int(name) for name in names if name.isdecimal() and not name.startswith("0")))


def _check(engine_folder: Path, model: Path, version: int) -> None:
    if not (engine_folder / ENGINE_FILE).is_file():
        raise InputError(f"engine {engine_folder}: found no {ENGINE_FILE} there. Build the engine first: optkit build")
    if version < 1:
        raise InputError(f"model {model.name!r}: found version {version}, expected 1 or more")
    if (model / str(version)).exists():
        free = max(versions(model)) + 1
        raise InputError(f"model {model.name!r}: version {version} is already in {model.parent}. Use version {free}")


def stage(staged: Path, engine_folder: Path, config: ModelConfig, version: int, link: bool = False) -> None:
    """Write a whole model folder into `staged`, whose name is the model's there, whatever `config` says."""
    folder = staged / str(version)
    folder.mkdir(parents=True)
    (staged / "config.pbtxt").write_text(configuration.write(config, staged.name), encoding="utf-8")
    (folder / "model.py").write_text(model_py(), encoding="utf-8")
    shutil.copytree(engine_folder, folder / ENGINE, copy_function=_link if link else shutil.copy2)


def _link(source: str, destination: str) -> None:
    """A hard link to the file itself (never to a symbolic link), or a copy on another file system."""
    try:
        os.link(os.path.realpath(source), destination)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        shutil.copy2(source, destination)


def _reason(error: OSError) -> str:
    """What went wrong, the first thing where `shutil` reports several."""
    return str(error.args[0][0][2]) if isinstance(error, shutil.Error) else f"{error.strerror} ({error.filename})"


def _rename(staged: Path, model: Path, version: str) -> None:
    """Move a new model as a whole; of a model that is there, the version first: the old configuration serves it too."""
    if not model.exists():
        staged.rename(model)
        return
    (staged / version).rename(model / version)
    (staged / "config.pbtxt").replace(model / "config.pbtxt")
