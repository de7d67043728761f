"""Whether a repository is what was published: every file's SHA-256 anew, and nothing that does not belong there."""

import os
from pathlib import Path

from optkit.core.atomic import file_hash
from optkit.core.errors import InputError
from optkit.registry import disk, history, layout, live_config, text_pipeline
from optkit.registry.disk import LOCK, reading
from optkit.registry.layout import CARD, CONFIG, HISTORY, PROVENANCE
from optkit.registry.signing import SIGNATURE, Trust
from optkit.serving import config as configuration
from optkit.serving import repository

_KEPT = {".gitkeep", ".gitignore", LOCK}


def verify(root: Path, trust: Trust | None = None) -> list[str]:
    """One complaint for every file that differs, is missing or does not belong there; empty where all is well.

    Args:
        root: the model repository.
        trust: keys, one of which has to have signed every version.

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
            found += _model(path, trust) if path.is_dir() else [f"{path}: not put there by optkit publish; remove it"]
    return found


def require(root: Path, trust: Trust | None = None) -> None:
    """Refuse a repository that is not what was published.

    Args:
        root: the model repository.
        trust: keys, one of which has to have signed every version that is live.

    Raises:
        InputError: with every complaint.
    """
    found = verify(root)
    if trust is not None and not found:
        live = [root / name / str(layout.live(root / name)) for name in layout.models(root)]
        found = [line for folder in live for line in trust.complaints(folder)]
    if found:
        raise InputError(
            f"model repository {root} is not what was published:\n" + "\n".join(f"  - {line}" for line in found)
        )


def version(folder: Path) -> list[str]:
    """Complaints about one version's folder."""
    published = history.publication(folder.parent, int(folder.name))
    if published is not None and (found := file_hash(folder / PROVENANCE)) != published["provenance"]:
        return [_changed(folder / PROVENANCE, found, str(published["provenance"]))]
    if complaints := layout.copied(folder):
        return complaints
    origin = layout.provenance(folder)
    if published is not None and not history.belongs(published, origin):
        return [f"{folder.parent / HISTORY}: not the one that {folder / PROVENANCE} was published with; {history.RESTORE}"]
    stated = origin["files"]
    if published is not None and published.get("signature"):
        stated = {**stated, SIGNATURE: published["signature"]}
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


def _model(model: Path, trust: Trust | None) -> list[str]:
    try:
        configuration.check_name(model.name)
        if found := [*layout.links(model), *layout.foreign(model)]:
            return found
        found = [line for number in repository.versions(model) for line in _version(model / str(number), trust)]
        return found if any(PROVENANCE in line for line in found) else [*found, *_shown(model)]
    except InputError as error:
        return [str(error)]


def _version(folder: Path, trust: Trust | None) -> list[str]:
    return version(folder) or ([] if trust is None else trust.complaints(folder))


def _shown(model: Path) -> list[str]:
    """Complaints about what says which version is live, and about the card."""
    live = layout.live(model)
    if live not in repository.versions(model):
        return [history.missing(model, live)]
    found = []
    history.unfinished(model)
    if (model / CONFIG).read_bytes() != live_config.content(model / str(live), live_config.entry(model)):
        found.append(history.changed(model, live))
    found += text_pipeline.complaints(model, live)
    # an interrupted switch leaves another version's card, which the next one replaces
    cards = {layout.provenance(model / str(number))["files"].get(CARD) for number in repository.versions(model)}
    if (model / CARD).is_file() and file_hash(model / CARD) not in cards:
        found.append(f"{model / CARD}: not the card of a published version")
    return found


def _changed(path: Path, found: str, expected: str) -> str:
    return f"{path}: SHA-256 is {found[:16]}, published was {expected[:16]}: the file changed"
