"""The safetensors files of a folder: which of them have the weights, what is in them, and what it is called."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypedDict

import torch
from safetensors import SafetensorError, safe_open

from optkit.core.errors import InputError
from optkit.core.json_door import read_json

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_WRAPPERS = {"module.": "DataParallel", "_orig_mod.": "torch.compile"}


class _Index(TypedDict):
    weight_map: dict[str, str]


def files(folder: Path) -> list[Path]:
    """Return the files that transformers reads: one, or those that the index names.

    Raises:
        InputError: the index names files elsewhere.
    """
    index = folder / _INDEX
    if (folder / _WEIGHTS).is_file() or not index.is_file():
        return [folder / _WEIGHTS]
    names = sorted(set(read_json(index, _Index, "save the model again with save_pretrained")["weight_map"].values()))
    if strange := [name for name in names if Path(name).name != name]:
        raise InputError(f"{index}: names the file {strange[0]!r}, expected names of files beside it")
    return [folder / name for name in names]


def check(folder: Path, source: str) -> None:
    """Raise `InputError` unless the files that transformers reads are there and whole, and their model is not wrapped.

    Args:
        folder: has some `*.safetensors`.
        source: whose it is, for messages.
    """
    paths = files(folder)
    if missing := [path.name for path in paths if not path.is_file()]:
        raise InputError(f"--model {source}: {_missing(folder, missing, len(paths))}")
    for path in paths:
        try:
            with safe_open(path, "pt"):
                pass
        except SafetensorError as error:
            reason = str(error).removeprefix("Error while deserializing header: ")
            raise InputError(
                f"--model {source}: {path.name} is damaged, or was not written to its end ({reason}; it has "
                f"{path.stat().st_size:,} bytes); download it again, or save it again with save_pretrained"
            ) from error
    _check_wrapped(folder, source)


def _missing(folder: Path, missing: list[str], expected: int) -> str:
    """Return what is wrong with a folder that lacks files with weights, and what to do."""
    if missing != [_WEIGHTS]:
        return (
            f"{len(missing)} of the {expected} files with weights that {_INDEX} names are not there ({missing[0]}"
            f"{', …' if len(missing) > 1 else ''}); download the folder again, or save it again with save_pretrained"
        )
    there = sorted(path.name for path in folder.glob("*.safetensors"))
    if any(map(_SHARD.fullmatch, there)):
        return f"no {_INDEX}, which says which tensors are in {there[0]} and the others like it; download it too"
    return f"no {_WEIGHTS} in it; if {there[0]} is the model, rename it to {_WEIGHTS}"


def types(paths: Iterable[Path]) -> dict[str, str]:
    """Return the types of the tensors in files, as safetensors writes them, by name."""
    found = {}
    for path in paths:
        with safe_open(path, "pt") as file:
            found.update({name: file.get_slice(name).get_dtype() for name in file.keys()})  # noqa: SIM118
    return found


def read(path: Path, wanted: Callable[[str], bool] = bool) -> dict[str, torch.Tensor]:
    """Read the tensors of a file whose names are wanted, by name."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys() if wanted(name)}  # noqa: SIM118


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a folder's `model*.safetensors`, by name."""
    return {name: tensor for path in sorted(folder.glob("model*.safetensors")) for name, tensor in read(path).items()}


def _check_wrapped(folder: Path, source: str) -> None:
    """Raise `InputError` for weights whose names all begin with what wraps a model while it is trained."""
    names = types(files(folder))
    for prefix, wrapper in _WRAPPERS.items():
        if names and all(name.startswith(prefix) for name in names):
            raise InputError(
                f"--model {source}: all its tensors are named {prefix}…, as {wrapper} names them; save the model inside: "
                f"model.{prefix}save_pretrained(folder)"
            )
