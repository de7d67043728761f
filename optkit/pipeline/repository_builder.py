"""A model repository of a recipe's engines, for the server of the wheel or for NVIDIA's containers.

Nothing is judged here: `optkit publish` is what puts an engine that passed its gate before users.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optkit.compression import checkpoint
from optkit.core.errors import InputError
from optkit.core.step_cache import writing
from optkit.engines import registry as engines
from optkit.engines.record import read_record
from optkit.engines.select import FILE as CONVERSION
from optkit.evaluation.artifacts import engine_folders
from optkit.evaluation.through_server import model_config
from optkit.models import loading
from optkit.pipeline import library_folder
from optkit.pipeline.run_spec import RunSpec
from optkit.recipe.recipe import Recipe
from optkit.serving import containers, native, repository

FLAVOURS = ("python", "native")


def check(
    flavour: str | None,
    out: Path | None,
    kinds: Sequence[str],
    container: str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Find what cannot work before anything is built.

    Args:
        flavour: "python" or "native"; None where no repository was asked for.
        out: where the repository goes.
        kinds: of engine that were asked for; empty for all that run here.
        container: tag of the container.
        options: of the builds, by kind and key.

    Raises:
        InputError: another flavour, no folder, or a container where none is used.
        MachineError: engines of a kind that do not run here, or that no container runs.
    """
    if flavour is None and container is None:
        return
    if flavour is not None and flavour not in FLAVOURS:
        raise InputError(f"--flavour {flavour}: expected one of {', '.join((*FLAVOURS, *library_folder.FLAVOURS))}")
    if container is not None and flavour != "native":
        raise InputError(f"--container {container}: only models of the flavour native run in one; add --flavour native")
    if out is None:
        raise InputError(f"--flavour {flavour}: needs the folder of the model repository: --out DIR")
    for kind in kinds:
        engines.require_running(kind)
    if flavour == "native" and len(kinds) == 1:
        version = engines.machine(kinds)["runtimes"][kinds[0]]
        settings = engines.options(kinds, options or {})[kinds[0]]
        containers.container({"kind": kinds[0], "runtime_version": version, "settings": settings}, container)


def write(recipe: Recipe, spec: RunSpec, built: Path, target: Path, flavour: str, container: str | None = None) -> str:
    """Put a recipe's engines into a repository, one model for each precision; nothing is written where one does not fit.

    Args:
        recipe: which was built.
        spec: it was built for.
        built: folder with one engine per precision.
        target: the repository; made if it does not exist.
        flavour: "python" for the server of the wheel, "native" for NVIDIA's containers.
        container: tag of the container, with `=VERSION` where the table does not have it.

    Returns:
        The command that serves the repository.

    Raises:
        InputError: a model is there already, or the engines need several containers.
        MachineError: no container runs an engine, or the repository cannot be written.
    """
    found = named(recipe, spec, engine_folders(built))
    for name in found:
        if (target / name).exists():
            raise InputError(f"model {name!r} is already in {target}. Remove {target / name}, or choose another folder")
    command = f"optkit serve --repository {target} --unpublished"
    if flavour == "native":
        command = _docker_command(found.values(), target, container)
        for name, engine in found.items():
            native.place(target, name, engine)
        return command
    loaded = checkpoint.load(spec.folder(recipe), spec.task)
    shape = spec.task.shape_of_logits(spec.folder(recipe))
    length = loading.max_length(loaded, spec.task)
    for name, engine in found.items():
        config = model_config(name, engine, loaded.tokenizer, spec.task, length, shape)
        repository.place(target, engine, config)
    return command


def copy(built: Path, out: Path) -> None:
    """Copy engines as they were built to a folder, whose earlier engines they replace.

    Raises:
        InputError: the folder holds something else.
        MachineError: it cannot be written.
    """
    if out.exists() and not (out / CONVERSION).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}: exists and holds no engines of optkit build. Remove it, or choose another folder")
    with writing(out) as unfinished:
        shutil.copytree(built, unfinished, dirs_exist_ok=True)


def named(recipe: Recipe, spec: RunSpec, found: Mapping[str, Path]) -> dict[str, Path]:
    """The engines by the name of their model: `<project>_<recipe>`, with the precision behind it where there are several."""
    name = spec.home.model(recipe.name)
    return {f"{name}_{precision}" if len(found) > 1 else name: engine for precision, engine in found.items()}


def _docker_command(found: Iterable[Path], target: Path, container: str | None) -> str:
    records = [read_record(engine) for engine in found]
    kinds = sorted({record["kind"] for record in records})
    if len(kinds) > 1:
        raise InputError(
            f"--flavour native: the engines are {' and '.join(kinds)}, and a container is found by one kind. Build one: "
            f"--engine {kinds[0]}"
        )
    return {containers.docker_command(target, record, container) for record in records}.pop()
