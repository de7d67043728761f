"""A model repository of a recipe's engines, for the server of the wheel or for NVIDIA's containers.

Nothing is judged here: `optkit publish` is what puts an engine that passed its gate before users.
"""

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from optkit.benchmark import tuned
from optkit.compression import checkpoint
from optkit.core.errors import InputError
from optkit.core.step_cache import writing
from optkit.engines import registry as engines
from optkit.engines.conversion_file import FILE as CONVERSION
from optkit.engines.record import read_record
from optkit.evaluation.artifacts import engine_folders
from optkit.evaluation.through_server import model_config
from optkit.models import loading
from optkit.models.loading import LoadedModel
from optkit.pipeline import library_folder, repository_text
from optkit.pipeline.run_spec import RunSpec
from optkit.recipe.recipe import Recipe
from optkit.serving import containers, ensemble, native, repository
from optkit.serving.config import ModelConfig

log = logging.getLogger(__name__)
FLAVOURS = ("python", "native")


def check(
    flavour: str | None,
    out: Path | None,
    kinds: Sequence[str],
    container: str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    text: bool = False,
) -> None:
    """Find what cannot work before anything is built.

    Args:
        flavour: "python" or "native"; None where no repository was asked for.
        out: where the repository goes.
        kinds: of engine that were asked for; empty for all that run here.
        container: tag of the container.
        options: of the builds, by kind and key.
        text: whether text is to be served too.

    Raises:
        InputError: another flavour, no folder or one that holds something else, or a container or text where there is no
            repository.
        MachineError: engines of a kind that do not run here, or that no container runs.
    """
    if text and flavour is None:
        raise InputError("--text: is of a model repository; add --flavour python or native")
    if flavour is None and container is None:
        _require_own(out)
        return
    if flavour is not None and flavour not in FLAVOURS:
        raise InputError(f"--flavour {flavour}: expected one of {', '.join((*FLAVOURS, *library_folder.FLAVOURS))}")
    if container is not None and flavour != "native":
        raise InputError(f"--container {container}: only models of the flavour native run in one; add --flavour native")
    if out is None:
        raise InputError(f"--flavour {flavour}: needs the folder of the model repository: --out DIR")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: exists and is no folder. Choose another one")
    for kind in kinds:
        engines.require_running(kind)
    if flavour == "native" and len(kinds) == 1:
        version = engines.machine(kinds)["runtimes"][kinds[0]]
        settings = engines.options(kinds, options or {})[kinds[0]]
        containers.container({"kind": kinds[0], "runtime_version": version, "settings": settings}, container)


def write(
    recipe: Recipe,
    spec: RunSpec,
    built: Path,
    target: Path,
    flavour: str,
    container: str | None = None,
    text: bool = False,
) -> str:
    """Put a recipe's engines into a repository, one model for each precision; nothing is written where one does not fit.

    Args:
        recipe: which was built.
        spec: it was built for.
        built: folder with one engine per precision.
        target: the repository; made if it does not exist.
        flavour: "python" for the server of the wheel, "native" for NVIDIA's containers.
        container: tag of the container, with `=VERSION` where the table does not have it.
        text: put the models around each engine beside it that take text.

    Returns:
        The command that serves the repository.

    Raises:
        InputError: a model is there already, the engines need several containers, no backend computes as they do, or no text
            can be served with them.
        MachineError: no container runs an engine, or the repository cannot be written.
    """
    folders = engine_folders(built)
    if flavour == "native":
        folders = _in_backends(folders)
    found = named(recipe, spec, folders)
    for name in (each for model in found for each in (model, *(ensemble.names(model) if text else ()))):
        if (target / name).exists():
            raise InputError(f"model {name!r} is already in {target}. Remove {target / name}, or choose another folder")
    if flavour == "native":
        return _write_native(recipe, spec, built, target, found, container, text)
    loaded, configs = _configs(recipe, spec, found)
    with repository_text.beside(target, [*configs.values()], spec.task, loaded) if text else nullcontext():
        for name, engine in found.items():
            repository.place(target, engine, configs[name])
    return f"optkit serve --repository {target} --unpublished"


def _write_native(
    recipe: Recipe, spec: RunSpec, built: Path, target: Path, found: Mapping[str, Path], container: str | None, text: bool
) -> str:
    records = _of_one_kind(found.values())
    if not text:
        command = {containers.docker_command(target, record, container) for record in records}.pop()
        _place_native(target, built, found)
        return command
    tag = {containers.container(record, container) for record in records}.pop()
    loaded, configs = _configs(recipe, spec, found)
    seen = [repository_text.around_native(config, found[name]) for name, config in configs.items()]
    with repository_text.beside(target, seen, spec.task, loaded):
        _place_native(target, built, found)
    return repository_text.docker_command(target, records[0], tag)


def _place_native(target: Path, built: Path, found: Mapping[str, Path]) -> None:
    for name, engine in found.items():
        native.place(target, name, engine, **_tuned(built, engine.name))


def _configs(recipe: Recipe, spec: RunSpec, found: Mapping[str, Path]) -> tuple[LoadedModel, dict[str, ModelConfig]]:
    """The recipe's model, and for each engine what optkit's backend has to know of it."""
    loaded = checkpoint.load(spec.folder(recipe), spec.task)
    shape = spec.task.shape_of_logits(spec.folder(recipe))
    length = loading.max_length(loaded, spec.task)
    return loaded, {name: model_config(name, engine, loaded, spec.task, length, shape) for name, engine in found.items()}


def copy(built: Path, out: Path) -> None:
    """Copy engines as they were built to a folder, whose earlier engines they replace.

    Raises:
        InputError: the folder holds something else.
        MachineError: it cannot be written.
    """
    _require_own(out)
    with writing(out) as unfinished:
        shutil.copytree(built, unfinished, dirs_exist_ok=True)


def _require_own(out: Path | None) -> None:
    """Refuse a folder for engines that holds something else."""
    if out is None or not out.exists() or (out / CONVERSION).is_file():
        return
    if not out.is_dir() or any(out.iterdir()):
        raise InputError(f"--out {out}: exists and holds no engines of optkit build. Remove it, or choose another folder")


def named(recipe: Recipe, spec: RunSpec, found: Mapping[str, Path]) -> dict[str, Path]:
    """The engines by the name of their model: `<project>_<recipe>`, with the precision behind it where there are several."""
    name = spec.home.model(recipe.name)
    return {f"{name}_{precision}" if len(found) > 1 else name: engine for precision, engine in found.items()}


def _in_backends(folders: Mapping[str, Path]) -> dict[str, Path]:
    """The engines that native backends compute as they are, or nearly so; of others it is said why they are left out.

    Raises:
        InputError: there are none.
    """
    found: dict[str, Path] = {}
    refused: dict[str, InputError] = {}
    for precision, engine in folders.items():
        record = read_record(engine)
        try:
            engines.runtime(record["kind"]).native_record(record)
            found[precision] = engine
        except InputError as error:
            refused[precision] = error
    if refused and not found:
        raise next(iter(refused.values()))
    for precision, reason in refused.items():
        log.warning("%s is left out: %s", precision, reason)
    return found


def _tuned(built: Path, precision: str) -> native.Settings:
    """What `optkit tune` found good for an engine; nothing where it has not been tuned."""
    if built.name != "engines":  # others than those that are tuned
        return {}
    found = tuned.settings(tuned.read(built.parent, precision))
    return {
        "instances": found.get("instances", 1),
        "threads": found.get("threads"),
        "queue_delay_us": found.get("queue_delay_us"),
        "preferred_batch_sizes": tuple(found.get("preferred_batch_sizes", ())),
    }


def _of_one_kind(found: Iterable[Path]) -> Sequence[Mapping[str, Any]]:
    """Records of engines, which one container runs."""
    records = [read_record(engine) for engine in found]
    kinds = sorted({record["kind"] for record in records})
    if len(kinds) > 1:
        raise InputError(
            f"--flavour native: the engines are {' and '.join(kinds)}, and a container is found by one kind. Build one: "
            f"--engine {kinds[0]}"
        )
    return records
