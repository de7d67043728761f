"""Options that several commands have, and what they mean."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optkit.core.errors import InputError
from optkit.tasks.registry import TASKS

if TYPE_CHECKING:
    from optkit.models.model_settings import ModelSettings
    from optkit.pipeline.run_spec import RunSpec
    from optkit.recipe.recipe import Recipe
    from optkit.recipe.training import Training
    from optkit.tasks.data.data_settings import DataSettings

log = logging.getLogger(__name__)


def _folder(checkpoints: str) -> Path:
    """The folder of checkpoints that is meant; of an object store, this machine's mirror."""
    from optkit.core import mirror

    root = mirror.place(checkpoints)
    if url := mirror.url_of(root):
        log.info("checkpoints %s: their mirror on this machine is %s", url, root)
    return root


*_TASKS, _LAST_TASK = TASKS.own
TaskName = Annotated[str, typer.Option("--task", help=f"{', '.join(_TASKS)} or {_LAST_TASK}", metavar="TASK")]
Name = Annotated[
    str | None, typer.Option(help="name of the project [default: of the data's and the model's folders]", metavar="NAME")
]
LARGEST_SEED = 2**32 - 1
"""What NumPy's generator takes."""
Seed = Annotated[int, typer.Option(help="training seed", min=0, max=LARGEST_SEED)]
Seeds = Annotated[
    list[int] | None, typer.Option(help="training seed; may be repeated [default: 0]", min=0, max=LARGEST_SEED)
]
Engines = Annotated[list[str] | None, typer.Option("--engine", help="kind of engine; may be repeated", metavar="KIND")]
BuildOption = Annotated[
    list[str] | None, typer.Option("--option", help="what an engine's build is told; may be repeated", metavar="KEY=VALUE")
]
Checkpoints = Annotated[Path, typer.Option(help="folder of the training output, or s3://…", metavar="DIR", parser=_folder)]
Out = Annotated[Path | None, typer.Option(help="write to this file instead of standard output", metavar="FILE")]
Repository = Annotated[str, typer.Option(help="model repository: a folder, s3://… or gs://…", metavar="DIR")]
ModelName = Annotated[str, typer.Argument(help="name of the model in the repository", metavar="MODEL")]
Trusted = Annotated[
    list[Path] | None, typer.Option(help="public key whose signatures are accepted; may be repeated", metavar="KEY")
]
DEFAULT_REPOSITORY = "model_repository"
DEFAULT_URL = "127.0.0.1:8000"


def specs_of(
    recipes: list[str],
    task: str,
    data: "DataSettings",
    model: "ModelSettings",
    training: "Training",
    seeds: list[int],
    kinds: list[str] | None,
    checkpoints: Path,
    seconds: float | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    name: str | None = None,
    new: bool = False,
) -> "tuple[list[RunSpec], list[Recipe]]":
    """What to run on, and what to run, with everything that can be wrong in it found before compute is spent.

    `new` says that a project may begin here: it is not looked for under other names, and may train its baseline anew.
    """
    from optkit.engines import registry as engines
    from optkit.pipeline import projects, trained_with
    from optkit.pipeline.run_spec import SECONDS, RunSpec
    from optkit.recipe import finder
    from optkit.tasks.registry import of_settings

    asked, known = finder.find(recipes)
    asked = [recipe.trained_with(training) for recipe in asked]
    known = {name: recipe.trained_with(training) for name, recipe in known.items()}
    for kind in kinds or ():
        engines.runtime(kind).require()
    loaded = of_settings(task, data)
    unique = dict.fromkeys(seeds)
    shared = (checkpoints, known, tuple(kinds or ()), SECONDS if seconds is None else seconds, options or {})
    told = (model.revision, model.labels)
    specs = [RunSpec(loaded, model.source, one, *shared, *told) for one in unique]
    given = projects.Source.of(data.source, model.source)
    find = projects.to_run if new else projects.to_go_on
    project = find(checkpoints, task, name, given, lambda: specs[0].source)
    log.info("project %s, in %s", project.name, project.folder)
    specs = [replace(spec, project=project.name, given=given) for spec in specs]
    if not new:
        for spec in specs:
            trained_with.check(spec)
    return specs, asked


def engine_options(kinds: list[str] | None, texts: list[str] | None) -> dict[str, dict[str, str]]:
    """What `--option KEY=VALUE` tells the builds of each kind: every kind that was asked for and knows the key.

    Raises:
        InputError: naming every option that none of them knows, or every one that a kind finds wrong.
    """
    from optkit.engines import registry as engines

    if not texts:
        return {}
    if wrong := [text for text in texts if "=" not in text]:
        raise InputError(f"--option {', '.join(wrong)}: expected KEY=VALUE")
    known = {kind: engines.runtime(kind).options.names() for kind in kinds or engines.installed()}
    pairs = [text.partition("=")[::2] for text in texts]
    if lost := [key for key, _ in pairs if not any(key in names for names in known.values())]:
        have = "; ".join(f"{kind}: {', '.join(names) or 'no options'}" for kind, names in known.items())
        raise InputError(f"--option {', '.join(lost)}: no engine that is built knows it; there are {have}")
    found = {kind: {key: value for key, value in pairs if key in names} for kind, names in known.items()}
    for kind, given in found.items():
        engines.runtime(kind).build_options(given)
    return found
