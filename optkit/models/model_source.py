"""Where a model comes from: a folder, or one commit of a repository on the Hugging Face hub."""

import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from optkit.core import atomic
from optkit.core.errors import InputError, MachineError
from optkit.models import tokenizers
from optkit.tasks import sentence_folder

_HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*(/[\w.-]+)?", re.ASCII)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
_LFS = b"version https://git-lfs"
"""Begin of a file that stands for one which Git LFS has not fetched."""
_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
"""What is fetched from a repository: configuration, weights and tokenizer, no code and no pickle."""


@dataclass(frozen=True)
class Source:
    """A folder with a model, and the commit that it is on the hub."""

    name: str
    """Name on the hub, or path, as it was given."""
    folder: Path
    commit: str | None = None
    """Hash of the commit on the hub; None for a folder of the user's."""

    def key(self) -> Any:
        """Return what results depend on: name and commit, or the hashes of the folder's files."""
        return {"hub": self.name, "commit": self.commit} if self.commit else atomic.hashes(self.folder)


def find(source: str | Path, revision: str | None = None, local_files_only: bool = False) -> Source:
    """Find the folder of a model; one on the hub is downloaded into the hub's cache.

    Args:
        source: folder, or name on the hub.
        revision: branch, tag or commit on the hub; by default the repository's main branch.
        local_files_only: take the hub's files from its cache alone, as with HF_HUB_OFFLINE=1.

    Raises:
        InputError: neither a folder nor a name that the hub can have, a folder with a revision, or no such revision.
        MachineError: the hub cannot be reached, or does not give the model.
    """
    if not isinstance(source, str | Path):
        raise InputError(
            f"model: found a {type(source).__name__}, expected a folder or a name on the hub. A model in memory is given "
            "to the functions as it is, with tokenizer=…"
        )
    name, folder = str(source), Path(source).expanduser()
    if name and os.path.isdir(folder):  # False too for what no path can be
        if revision is not None:
            raise InputError(f"--model {name}: is a folder here, which has no revisions; leave --revision {revision} out")
        return Source(name, folder)
    if os.path.isfile(folder):
        raise InputError(f"--model {name}: is a file; give the folder with config.json and model.safetensors")
    if not _HUB_NAME.fullmatch(name) or ("/" in name and os.path.isdir(folder.parent)):
        raise InputError(f"--model {name}: no such folder; expected one with config.json and model.safetensors")
    return _from_hub(name, revision, local_files_only)


def check(found: Source) -> None:
    """Raise `InputError` unless a folder has weights that are no pickle, a configuration and a tokenizer."""
    folder, name = found.folder, found.name
    weights = [*folder.glob("*.safetensors")]
    if not weights:
        sentence_folder.read(folder)  # which says where else they lie
    pickles = [path.name for pattern in _PICKLES for path in folder.glob(pattern)]
    if not weights and pickles:
        raise InputError(
            f"--model {name}: {pickles[0]} is a pickle, which can run code when it is read; expected "
            "model.safetensors. Convert it where you trust it: "
            "`AutoModel….from_pretrained(folder).save_pretrained(folder, safe_serialization=True)`"
        )
    if not weights and found.commit:
        raise InputError(f"--model {name}: no *.safetensors in it; give a --revision that has them, as refs/pr/1 often does")
    if not weights:
        raise InputError(f"--model {name}: no *.safetensors in it; expected a folder saved by save_pretrained")
    for path in weights:
        with path.open("rb") as file:
            if file.read(len(_LFS)) == _LFS:
                raise InputError(f"--model {name}: {path.name} is a pointer of Git LFS, not the weights; git lfs pull")
    if not (folder / "config.json").is_file():
        raise InputError(f"--model {name}: no config.json in it; expected a folder saved by save_pretrained")
    if not any((folder / file).is_file() for file in tokenizers.FILES):
        raise InputError(
            f"--model {name}: no tokenizer in it ({', '.join(tokenizers.FILES[:2])}, …); save it there with "
            "`tokenizer.save_pretrained(folder)`"
        )


def _from_hub(name: str, revision: str | None, local_files_only: bool) -> Source:
    from huggingface_hub import errors

    at = f" at {revision}" if revision else ""
    try:
        folder = _snapshot(name, revision, local_files_only)
    except errors.RevisionNotFoundError as error:
        raise InputError(
            f"--model {name}: the hub has no revision {revision!r} of it; give a branch, tag or commit"
        ) from error
    except errors.HFValidationError as error:
        raise InputError(f"--model {name}: neither a folder here nor a name on the hub ({_first_line(error)})") from error
    except Exception as error:  # of the network, the disk, or a repository that is closed or not there
        raise MachineError(
            f"--model {name}: not a folder here, and the hub does not give it{at} ({_first_line(error)}); give a folder"
        ) from error
    return Source(name, folder, folder.name)


def _snapshot(name: str, revision: str | None, local_files_only: bool) -> Path:
    """Return the folder of a commit in the hub's cache, after downloading what is not there yet."""
    from huggingface_hub import errors, snapshot_download

    get = partial(snapshot_download, name, revision=revision)
    try:  # subfolders have other formats of the same weights, numbered ones the modules of sentence-transformers
        return Path(get(allow_patterns=list(_FILES), ignore_patterns=["[!0-9]*/*"], local_files_only=local_files_only))
    except (errors.HfHubHTTPError, errors.HFValidationError):
        raise
    except Exception as error:  # the hub is not reached; the cache may have it
        try:
            return Path(get(local_files_only=True))
        except errors.LocalEntryNotFoundError:
            raise error from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
