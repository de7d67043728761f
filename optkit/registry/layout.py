"""What is in a repository: models, their versions, which of them is live, and the names of the files they consist of.

<repository>/<model>/config.pbtxt      which version is live, and what the server has to know of it
<repository>/<model>/README.md         the live version's card
<repository>/<model>/history.jsonl     who did what when, one line each
<repository>/<model>/<n>/              model.py, engine/, probe.npz, config.pbtxt, README.md and provenance.json; for
                                       text text/ and text-probe.json; where it is signed model.sig
<repository>/<model>_text*/            the pipeline that takes text (see `words`)
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from optkit.core.errors import InputError
from optkit.core.json_door import read_json
from optkit.registry.disk import UNFINISHED
from optkit.serving import config as configuration
from optkit.serving import ensemble, repository
from optkit.serving.config import ModelConfig

CONFIG, CARD, HISTORY, PROVENANCE, PROBE = "config.pbtxt", "README.md", "history.jsonl", "provenance.json", "probe.npz"


class _Row(TypedDict):
    recipe: str
    seed: int | None
    precision: str
    engine: str
    metric: str
    value: float
    delta: float
    delta_ci95: tuple[float, float]
    verdict: str


class _Published(TypedDict):
    at: str
    by: str


class _Forced(TypedDict):
    why: str


class _Replaced(_Forced):
    differences: list[str]


class _Provenance(TypedDict):
    files: dict[str, str]
    config: dict[str, Any]
    version: int
    model: str
    row: _Row
    published: _Published
    forced: _Forced | None
    replaced: NotRequired[_Replaced | None]
    task: NotRequired[str]
    labels: NotRequired[list[str] | None]
    data: NotRequired[str]


def models(root: Path) -> dict[str, tuple[int, ...]]:
    """Names of the published models with their versions, both sorted; the folders of their text pipelines are left out."""
    found = repository.models(root)
    left_out = _pipelines(root, found)
    return {name: numbers for name, numbers in found.items() if name not in left_out}


def pipelines(root: Path) -> set[str]:
    """Names of the folders that belong to the published models' text pipelines, there or not."""
    return _pipelines(root, models(root))


def _pipelines(root: Path, owners: Iterable[str]) -> set[str]:
    names = {name for owner in owners for name in ensemble.names(owner)}
    return {name for name in names if not (root / name / HISTORY).is_file()}


def check_names(model: Path) -> None:
    """Refuse a model whose folders would be those of another one.

    Raises:
        InputError: naming the other one.
    """
    for other in ensemble.names(model.name):
        if (model.parent / other / HISTORY).is_file():
            raise InputError(f"model {model.name!r}: its text pipeline would be {other!r}, a model in {model.parent}")
    for owner in models(model.parent):
        if owner != model.name and model.name in ensemble.names(owner):
            raise InputError(f"model {model.name!r}: would be the text pipeline of {owner!r}, a model in {model.parent}")


def find(root: Path, name: str) -> Path:
    """The folder of a model that was published there.

    Raises:
        InputError: the name is none, there is no such model, or something there was not made by publishing.
    """
    configuration.check_name(name)
    if not (root / name / CONFIG).is_file():
        have = ", ".join(models(root)) if root.is_dir() else ""
        raise InputError(f"model {name!r} is not in the repository {root}, which has: {have or 'nothing'}")
    check(root / name)
    return root / name


def check(model: Path) -> None:
    """Refuse to work on a model's folder that holds what publishing did not put there.

    Raises:
        InputError: naming the symbolic links, foreign folders and missing files.
    """
    versions = [model / str(number) for number in repository.versions(model)] if model.is_dir() else []
    if found := [*links(model), *foreign(model)] or [line for version in versions for line in copied(version)]:
        raise InputError(f"model {model.name!r} in {model.parent} cannot be changed: " + "; ".join(found))


def links(model: Path) -> list[str]:
    """Complaints about symbolic links, which may lead out of the repository and change behind its back."""
    found = [path for path in [model, *_below(model)] if path.is_symlink()]
    return [f"{path}: a symbolic link to {os.readlink(path)}; put the file itself there" for path in found]


def foreign(model: Path) -> list[str]:
    """Complaints about what is missing in a model's folder, and what does not belong there."""
    if model.is_symlink() or not model.is_dir():
        return []
    missing = [name for name in (CONFIG, HISTORY) if not (model / name).is_file()]
    found = [f"{model / name}: missing; the model was not put there by optkit publish" for name in missing]
    for path in sorted(model.iterdir()):
        if path.is_dir() and path.name in map(str, repository.versions(model)):
            if not (path / PROVENANCE).is_file():
                found.append(f"{path}: made by hand, it has no {PROVENANCE}; remove it, and publish what is in it")
        elif path.name not in (CONFIG, CARD, HISTORY) and not path.name.startswith(UNFINISHED):
            found.append(f"{path}: not put there by optkit publish; remove it")
    return found


def copied(version: Path) -> list[str]:
    """A complaint where a folder is another version's, under a new number or in another model."""
    stated = provenance(version)
    if (stated["model"], str(stated["version"])) != (version.parent.name, version.name):
        return [f"{version}: made by hand from version {stated['version']} of {stated['model']!r}; remove it"]
    return []


def live(model: Path) -> int:
    """The version that is served.

    Raises:
        InputError: the configuration cannot be read, or the model has no version.
    """
    stated = read_config(model).live
    return stated if stated is not None else max(repository.versions(model))


def read_config(model: Path) -> ModelConfig:
    """The model's configuration as it is on disk.

    Raises:
        InputError: it is not what publishing writes.
    """
    path = model / CONFIG
    try:
        return configuration.read(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a Triton model configuration: {error}") from error


def provenance(version: Path) -> dict[str, Any]:
    """Read the provenance of a version.

    Raises:
        InputError: the file is not what publishing writes.
    """
    content: dict[str, Any] = read_json(version / PROVENANCE, _Provenance, "publish the version again")
    return content


def config_of(version: Path, live: int) -> ModelConfig:
    """The configuration a version was published with, with `live` as the version to serve.

    Raises:
        InputError: the record lacks a field, or has one that there is not.
    """
    stored = provenance(version)["config"]
    try:
        return ModelConfig(**configuration.from_json(stored) | {"live": live})
    except (TypeError, AttributeError) as error:
        raise InputError(f"{version / PROVENANCE}: config: {error}; publish the version again") from error


def _below(model: Path) -> list[Path]:
    """Everything below a folder; links are named and not followed."""
    return [Path(at, name) for at, folders, files in os.walk(model) for name in sorted(folders + files)]
