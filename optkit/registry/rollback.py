"""Going back to an earlier version, and removing those that nobody goes back to."""

import logging
from pathlib import Path
from typing import Any

from optkit.core.errors import InputError
from optkit.registry import disk, history, layout, verify
from optkit.registry.disk import WAIT_S, locked
from optkit.registry.layout import CARD
from optkit.registry.live_server import Running
from optkit.registry.purpose import differences
from optkit.registry.release import go_live
from optkit.serving import config as configuration
from optkit.serving import repository

log = logging.getLogger(__name__)


def rollback(
    root: Path, name: str, to: int | None = None, url: str | None = None, why: str = "", wait_s: float = WAIT_S
) -> int:
    """Make an earlier version live again, or any other that is there.

    Args:
        root: the model repository.
        name: the model's.
        to: the version; by default the next lower one.
        url: a running server, `host:port`, that serves the repository and is to follow.
        why: kept in the history.
        wait_s: seconds to wait for another publisher.

    Returns:
        The version that is live now.

    Raises:
        InputError: no such model or version, or a file of it has changed.
        GateError, MachineError: the server rejects the version; the one that was live is live still.
    """
    configuration.check_name(name)
    server = None if url is None else Running(url)
    _require_folder(root)
    with locked(root, f"rolling back {name}", wait_s):
        model = layout.find(root, name)
        with disk.changing(root, f"roll back {name!r}"):
            live = _live(model, to)
            chosen = _lower(model, live) if to is None else to
            _require_version(model, chosen)
            if server is not None:
                server.require()
            more: dict[str, Any] = {"why": why} if why else {}
            if found := _differences(model, chosen, live):
                log.warning("%s: version %s was live, which is for %s", name, live, "; ".join(found))
                more["replaced"] = found
            event = history.event(history.ROLLED_BACK, chosen, instead_of=live, **more)
            with history.recording(model, event, model / str(chosen) / CARD):
                go_live(model, chosen, server)
    return chosen


def prune(root: Path, name: str, keep: int, wait_s: float = WAIT_S) -> list[int]:
    """Remove old versions: all but the newest ones and the live one.

    Args:
        root: the model repository.
        name: the model's.
        keep: how many of the newest versions stay.
        wait_s: seconds to wait for another publisher.

    Returns:
        The versions that were removed.

    Raises:
        InputError: no such model, or `keep` is less than 1.
        MachineError: the disk refuses.
    """
    configuration.check_name(name)
    if keep < 1:
        raise InputError(f"--keep {keep}: expected 1 or more")
    _require_folder(root)
    with locked(root, f"pruning {name}", wait_s):
        model = layout.find(root, name)
        with disk.changing(root, f"prune {name!r}"):
            history.mend(model)
            old = [each for each in repository.versions(model)[:-keep] if each != layout.live(model)]
            for version in old:
                with history.appending(model, history.event(history.PRUNED, version)) as put_in_place:
                    disk.remove(model / str(version), root)
                    put_in_place()
    return old


def _require_folder(root: Path) -> None:
    if not root.is_dir():
        raise InputError(f"model repository {root}: no such folder. Publish a model first, or name another one")


def _live(model: Path, to: int | None) -> int | None:
    """The live version, after putting right what is left of an interruption; None where nobody can tell."""
    try:
        history.mend(model)
        return layout.live(model)
    except InputError as error:
        if to is None:
            raise
        log.warning("%s", error)  # the configuration that cannot be read is about to be written anew
        return None


def _differences(model: Path, chosen: int, live: int | None) -> list[str]:
    """In what the live version is for something else than the chosen one."""
    if live is None:
        return []
    return differences(layout.provenance(model / str(chosen)), layout.provenance(model / str(live)))


def _lower(model: Path, live: int | None) -> int:
    lower = [version for version in repository.versions(model) if live is not None and version < live]
    if not lower:
        raise InputError(f"model {model.name!r}: version {live} is live and there is no lower one; name one with --to")
    return lower[-1]


def _require_version(model: Path, version: int) -> None:
    there = repository.versions(model)
    if version not in there:
        raise InputError(f"model {model.name!r}: found no version {version}; it has {', '.join(map(str, there))}")
    if complaints := verify.version(model / str(version)):
        raise InputError(f"model {model.name!r}: version {version} is not made live: " + "; ".join(complaints))
