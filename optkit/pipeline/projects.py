"""Projects: results on other data or from another model lie apart, under the name that their models are published by.

<checkpoints>/<task>/<recipe>/seed-<n>/           without --data, --model and --name, and those of version 0.1
<checkpoints>/<task>/<project>/<recipe>/seed-<n>/

The first is the project that is called like its task. `project.json` beside a project's recipes says what it was run on.
"""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from optkit.core import step_cache, temporary
from optkit.core.atomic import write_json
from optkit.core.errors import InputError
from optkit.core.json_door import read_json
from optkit.core.step_cache import RECORD
from optkit.tasks.data.data_settings import HUB

log = logging.getLogger(__name__)
FILE = "project.json"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_LONGEST = 60  # characters of a folder's name in a project's


class Source(NamedTuple):
    """What a user names as data and model, folders as absolute paths; None for what a task brings itself."""

    data: str | None = None
    model: str | None = None

    @classmethod
    def of(cls, data: str | Path | None, model: str | Path | None) -> "Source":
        """Take what was given on a command line."""
        on_disk = model is not None and os.path.exists(Path(model).expanduser())
        return cls(_placed(data, not str(data).startswith(HUB)), _placed(model, on_disk))

    @property
    def is_gone(self) -> bool:
        """Whether a folder of it is there no longer: it has moved."""
        return any(path and Path(path).is_absolute() and not os.path.exists(path) for path in self)

    def fits(self, given: "Source") -> bool:
        """Return whether it is what the fields name that are given."""
        return all(asked in (None, own) for own, asked in zip(self, given, strict=True))


class _Record(TypedDict):
    sources: list[tuple[str | None, str | None]]


class _Trained(TypedDict):
    data: Any
    model: Any


class Project(NamedTuple):
    """Where the results of a task lie, and what they are called in a model repository."""

    root: Path
    """The folder `checkpoints/`."""
    task: str
    name: str

    @property
    def folder(self) -> Path:
        """Folder of its recipes."""
        return self.root / self.task if self.name == self.task else self.root / self.task / self.name

    @property
    def sources(self) -> list[Source] | None:
        """What it was run on; None where that was not written down."""
        path = self.folder / FILE
        if not path.is_file():
            return None
        found = read_json(path, _Record, "delete it, the next run writes it anew")
        return [Source(*pair) for pair in found["sources"]]

    def recipe(self, name: str, seed: int) -> Path:
        """Return the folder of a recipe's results."""
        return self.folder / name / f"seed-{seed}"

    def model(self, recipe: str) -> str:
        """Return the name under which a recipe is published."""
        return f"{self.name}_{recipe}"

    def remember(self, source: Source) -> None:
        """Write down that it was run on a source."""
        known = self.sources or []
        if source not in known:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / FILE, {"sources": [*known, source]})


def existing(root: Path, task: str) -> list[Project]:
    """Return the projects of a task that have something finished, the one called like the task first."""
    names = [path.name for path in sorted((root / task).glob("[!.]*"))]
    found = [Project(root, task, name) for name in dict.fromkeys([task, *names])]
    return [project for project in found if _records(project)]


def find(root: Path, task: str, name: str | None = None, given: Source | None = None) -> Project:
    """Find the project whose results a user means; what runs that were killed left unfinished there is removed.

    Args:
        root: the folder `checkpoints/`.
        task: name of the task.
        name: of the project, if the user names one.
        given: data, model or both, otherwise.

    Returns:
        The one of that name, or the one that was run on what is given, or the only one of the task; the one called like the
        task where nothing has been run.

    Raises:
        InputError: the name is none, nothing was run on what is given, or several projects come into question.
    """
    temporary.sweep_tree(root / task)
    if name is not None:
        return Project(root, task, checked(name))
    have = existing(root, task)
    if given is None or given == Source():
        return _only(have, root / task) if have else Project(root, task, task)
    fitting = [project for project in have if any(one.fits(given) for one in project.sources or [])]
    fitting = fitting or [project for project in have if project.sources is None]
    if not fitting:
        said = " and ".join(f"--{field} {value}" for field, value in given._asdict().items() if value)
        raise InputError(f"task {task!r}: no results on {said} in {root / task}; it has {_listed(have) or 'none'}")
    default = _derived(root, task, given)
    return default if default in fitting else _only(fitting, root / task)


def to_run(root: Path, task: str, name: str | None, given: Source, made_of: Callable[[], Mapping[str, Any]]) -> Project:
    """Return the project that a run is part of.

    Args:
        root: the folder `checkpoints/`.
        task: name of the task.
        name: of the project; by default it is called after what is given.
        given: data and model.
        made_of: returns their contents, as records of checkpoints state them, to go on in the layout of version 0.1.

    Raises:
        InputError: the name is none.
    """
    if name is not None:
        return Project(root, task, checked(name))
    plain = Project(root, task, task)
    if given == Source() or _is_of(plain, given, made_of):
        return plain
    return _derived(root, task, given)


def to_go_on(root: Path, task: str, name: str | None, given: Source, made_of: Callable[[], Mapping[str, Any]]) -> Project:
    """Return the project to go on with: the one of a run, unless only one of another name was run on what is given.

    Arguments and errors as of `to_run`; also raises InputError where there are several.
    """
    chosen, have = to_run(root, task, name, given, made_of), existing(root, task)
    if name is not None and have and chosen not in have:
        log.warning("project %r begins here: so far there are %s", name, ", ".join(project.name for project in have))
    fitting = [project for project in have if given in (project.sources or [])]
    return chosen if name is not None or chosen in have or not fitting else _only(fitting, root / task)


def checked(name: str) -> str:
    """Return a name that a folder and a published model may have.

    Raises:
        InputError: it may not.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise InputError(
            f"--name {name!r}: expected up to 100 letters, digits, '_', '-' and '.', starting with a letter, a digit or '_' "
            "and without '..'. Choose another name"
        )
    return name


def _derived(root: Path, task: str, given: Source) -> Project:
    """The project called after the names of data and model, with a digest behind it where others have these names."""
    name = "-".join(_word(part) or kind for kind, part in given._asdict().items() if part)
    project = Project(root, task, name if name != task else f"{name}-data")
    sources = project.sources
    if sources is None or given in sources or all(source.is_gone for source in sources):
        return project
    digest = hashlib.sha256(repr(tuple(given)).encode()).hexdigest()[:8]
    return project._replace(name=f"{project.name}-{digest}")


def _word(place: str) -> str:
    """The last part of a path or the whole of a name on the hub, in characters that a name may have."""
    part = place.removeprefix(HUB).partition("#")[0] if place.startswith(HUB) else Path(place).name
    return re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9_.-]+", "-", part)).strip("-.")[:_LONGEST]


def _is_of(project: Project, given: Source, made_of: Callable[[], Mapping[str, Any]]) -> bool:
    """Whether a project was run on a source; where nobody wrote that down, by what its checkpoints were made of."""
    if (sources := project.sources) is not None:
        return given in sources
    if not (records := _records(project)):
        return False
    wanted = made_of()
    found = (step_cache.made_of(path.parent, _Trained) for path in records)
    return any(one["data"] == wanted["data"] and _is_same_model(one["model"], wanted["model"], given) for one in found)


def _is_same_model(stored: Any, wanted: Any, given: Source) -> bool:
    """Whether a checkpoint started from a model; version 0.1 stated only the name of one on the hub, and none by default."""
    on_hub = isinstance(wanted, dict) and wanted.get("hub")
    return stored == wanted or (stored == on_hub if stored else given.model is None)


def _records(project: Project) -> list[Path]:
    return sorted(project.folder.glob(f"[!.]*/seed-*/{RECORD}"))


def _only(found: list[Project], folder: Path) -> Project:
    if len(found) > 1:
        raise InputError(f"{folder}: has the projects {_listed(found)}; name one of them with --name")
    return found[0]


def _listed(found: list[Project]) -> str:
    return ", ".join(project.name for project in found)


def _placed(given: str | Path | None, is_path: bool) -> str | None:
    if given is None:
        return None
    return os.path.abspath(Path(given).expanduser()) if is_path else str(given)
