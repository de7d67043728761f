"""Whether a repository is what was published: every file's SHA-256 anew, and nothing that does not belong there."""

import os
from pathlib import Path

from optkit.core.atomic import file_hash
from optkit.core.errors import InputError
from optkit.registry import disk, history, layout, text_pipeline
from optkit.registry.disk import LOCK, reading
from optkit.registry.layout import CARD, CONFIG, PROVENANCE
from optkit.serving import config as configuration
from optkit.serving import repository

_KEPT = {".gitkeep", ".gitignore", LOCK}


def verify(root: Path) -> list[str]:
    """One complaint for every file that differs, is missing or does not belong there; empty where all is well.

    Raises:
        InputError: there is no such repository.
    """
    if not root.is_dir():
        raise InputError(f"model repository {root}: no such folder. Publish a model first, or name another one")
    links = [path for path in sorted(root.iterdir()) if path.is_symlink()]
    found = [f"{path}: a symbolic link to {os.readlink(path)}; remove it" for path in links]
    with reading(root):
        pipelines = layout.pipelines(root)
        for path in sorted(root.iterdir()):
            if path in links or path.name in _KEPT or path.name.startswith(disk.UNFINISHED):
                continue
            if path.name in pipelines:
                continue  # looked at with its model
            found += _model(path) if path.is_dir() else [f"{path}: not put there by optkit publish; remove it"]
    return found


def require(root: Path) -> None:
    """Refuse a repository that is not what was published.

    Raises:
        InputError: with every complaint.
    """
    if found := verify(root):
        raise InputError(
            f"model repository {root} is not what was published:\n" + "\n".join(f"  - {line}" for line in found)
        )


def version(folder: Path) -> list[str]:
    """Complaints about one version's folder."""
    expected = history.fingerprint(folder.parent, int(folder.name))
    if expected is not None and (found := file_hash(folder / PROVENANCE)) != expected:
        return [_changed(folder / PROVENANCE, found, expected)]
    if complaints := layout.copied(folder):
        return complaints
    stated = layout.provenance(folder)["files"]
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    complaints = [f"{folder / name}: missing" for name in stated if name not in there]
    others = [path for path in sorted(folder.rglob("*")) if not path.is_file() and not path.is_dir()]
    complaints += [f"{path}: neither a file nor a folder; remove it" for path in others]
    for name, path in sorted(there.items()):
        if name == PROVENANCE:
            continue
        if name not in stated:
            complaints.append(f"{path}: not among the files that were published; remove it")
        elif (found := file_hash(path)) != stated[name]:
            complaints.append(_changed(path, found, stated[name]))
    return complaints


def _model(model: Path) -> list[str]:
    try:
        configuration.check_name(model.name)
        if found := [*layout.links(model), *layout.foreign(model)]:
            return found
        found = [line for number in repository.versions(model) for line in version(model / str(number))]
        return found if any(PROVENANCE in line for line in found) else [*found, *_shown(model)]
    except InputError as error:
        return [str(error)]


def _shown(model: Path) -> list[str]:
    """Complaints about what says which version is live, and about the card."""
    live = layout.live(model)
    if live not in repository.versions(model):
        return [history.missing(model, live)]
    found = []
    if layout.read_config(model) != layout.config_of(model / str(live), live):
        found.append(f"{model / CONFIG}: not as it was published; write it again: optkit rollback {model.name} --to {live}")
    found += text_pipeline.complaints(model, live)
    # an interrupted switch leaves another version's card, which the next one replaces
    cards = {layout.provenance(model / str(number))["files"].get(CARD) for number in repository.versions(model)}
    if (model / CARD).is_file() and file_hash(model / CARD) not in cards:
        found.append(f"{model / CARD}: not the card of a published version")
    return found


def _changed(path: Path, found: str, expected: str) -> str:
    return f"{path}: SHA-256 is {found[:16]}, published was {expected[:16]}: the file changed"
