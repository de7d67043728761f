"""Repositories in an object store: downloaded, changed as any other, and uploaded in an order that readers can bear.

What is removed goes first. Of a version come its files, the history with its entry, and its provenance, without which it is
not there. Then the model's `config.pbtxt` says that it is live: that is the moment when the change happens, and whoever
publishes next takes back what has no such end, as after a crash on a disk. History, provenance and configuration are written
only if nobody else has written them meanwhile. The card follows.

Text pipelines are not uploaded: they are copies of what lies in the live version, and are made again where one serves.
"""

import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from optkit.core import temporary
from optkit.core.errors import InputError, MachineError, OptkitError
from optkit.core.object_store import Changed, Store, Tag, is_url
from optkit.registry import disk, layout, lease, text_pipeline
from optkit.registry.disk import WAIT_S
from optkit.registry.layout import CARD, CONFIG, HISTORY, PROVENANCE
from optkit.registry.lease import Lease

TRIES = 5
Files = dict[str, tuple[int, int, int]]
"""{name: size, time of the last change, inode} of a folder's files."""

log = logging.getLogger(__name__)


@contextmanager
def reading(repository: str | Path, to_serve: bool = False, own: bool = False) -> Iterator[Path]:
    """A folder with what is published: the repository itself, or a download of it that lasts as long as the block.

    Args:
        repository: a folder, or a URL.
        to_serve: with the models' text pipelines in a download, too.
        own: a copy of a folder instead of it, so that nobody changes what has been checked.

    Raises:
        InputError: the URL is none.
        MachineError: the store refuses, or is not there.
    """
    if not is_url(str(repository)):
        if not own:
            yield Path(repository)
            return
        with _mirror(str(repository)) as folder:
            _copy(Path(repository), folder)
            yield folder
        return
    store = Store(str(repository))
    with _mirror(store.url) as folder:
        _download(store, folder)
        for line in strange(store):
            log.warning("%s", line)
        for model in layout.models(folder) if to_serve else ():
            text_pipeline.put_right(folder / model, layout.live(folder / model))
        yield folder


@contextmanager
def changing(repository: str | Path, doing: str, wait_s: float = WAIT_S, url: str | None = None) -> Iterator[Path]:
    """A folder to change a repository in. What was changed in a download is uploaded when the block ends well.

    Args:
        repository: a folder, or a URL.
        doing: said to other publishers.
        wait_s: seconds to wait for one.
        url: running server that is to follow; it cannot follow a download.

    Raises:
        InputError: the URL is none, or a server is to follow a repository in a store.
        MachineError: the store refuses, cannot keep publishers apart, or another one was quicker; nothing went live.
    """
    if not is_url(str(repository)):
        yield Path(repository)
        return
    if url is not None:
        raise InputError(
            f"--url {url}: a running server cannot follow {repository}, which is changed after the trial. Publish there "
            "without --url, and have the server load the model again"
        )
    store = Store(str(repository))
    with lease.leased(store, doing, wait_s) as held, _mirror(store.url) as folder:
        known = _download(store, folder)
        if store.lost:
            raise InputError("; ".join(strange(store)) + ". It keeps what lies beside it from being seen")
        for line in strange(store):
            log.warning("%s", line)
        store.delete(sorted(_uncommitted(store.names())))
        before = _files(folder)
        yield folder
        _upload(store, folder, before, known, held)


def complaints(repository: str | Path) -> list[str]:
    """Complaints about objects in a store that no folder can hold; empty for a folder.

    Raises:
        MachineError: the store refuses, or is not there.
    """
    if not is_url(str(repository)):
        return []
    store = Store(str(repository))
    store.names()
    return strange(store)


def strange(store: Store) -> list[str]:
    """Complaints about what a store's names left out."""
    return [f"model repository {store.url}: {why}; it is left out, remove it" for why in store.strange.values()]


def named(text: object, folder: Path, repository: str | Path) -> str:
    """A text with the repository's own name in the place of the folder that was yielded."""
    return str(text).replace(str(folder), str(repository).rstrip("/")) if is_url(str(repository)) else str(text)


@contextmanager
def _mirror(repository: str) -> Iterator[Path]:
    """An empty folder; errors name the repository in its place."""
    with temporary.folder("optkit-repository") as scratch:
        folder = scratch / "repository"
        folder.mkdir()
        try:
            yield folder
        except OptkitError as error:
            if str(folder) not in str(error):
                raise
            raise type(error)(str(error).replace(str(folder), repository)) from error


def _copy(root: Path, folder: Path) -> None:
    """Fill a folder with what is published in another one; links stay links, which `verify` names."""
    if not root.is_dir():
        raise InputError(f"model repository {root}: no such folder. Publish a model first, or name another one")
    left_out = shutil.ignore_patterns(f"{disk.UNFINISHED}*", disk.LOCK)
    with disk.reading(root), disk.changing(root, f"copy it to {folder.parent}"):
        shutil.copytree(root, folder, symlinks=True, ignore=left_out, dirs_exist_ok=True)


def _download(store: Store, folder: Path) -> dict[str, Tag]:
    """Fill a folder with one state of the repository; returns the objects' tags.

    Publishers may be at work meanwhile: what changed under the reader's hands is read anew.
    """
    for _ in range(TRIES):
        listed, known = _committed(store), {}
        with suppress(Changed), disk.changing(Path(store.url), "download it"):
            for name in listed:
                known[name] = store.get(name, folder / name)
            if _committed(store) == listed:
                return known
        for name in _files(folder):
            (folder / name).unlink()
    raise MachineError(f"model repository {store.url}: changed {TRIES} times while it was read. Try again")


def _committed(store: Store) -> dict[str, str]:
    """{name: its state} of all that readers look at."""
    found = store.names()
    left_out = _uncommitted(found) | {lease.NAME}
    return {name: state for name, state in found.items() if name not in left_out}


def _uncommitted(names: Iterable[str]) -> set[str]:
    """Files of versions that were never uploaded whole, or are being deleted, and of models that have no configuration."""
    names = [name for name in names if "/" in name]
    models = {name.partition("/")[0] for name in names if _is_of_model(name, CONFIG)}
    versions = {name.removesuffix(f"/{PROVENANCE}") for name in names if name.endswith(f"/{PROVENANCE}")}
    return {
        name
        for name in names
        if name.partition("/")[0] not in models or (_is_version(name) and _version_of(name) not in versions)
    }


def _is_version(name: str) -> bool:
    """Whether a file lies in a version's folder."""
    parts = PurePosixPath(name).parts
    return len(parts) > 2 and parts[1].isdecimal() and not parts[1].startswith("0")


def _is_of_model(name: str, *files: str) -> bool:
    """Whether it is one of these files of a model, beside its versions."""
    return PurePosixPath(name).parts[1:] in {(file,) for file in files}


def _version_of(name: str) -> str:
    """`<model>/<n>` of a file in it."""
    return "/".join(name.split("/")[:2])


def _files(folder: Path) -> Files:
    """Every file but those of a publisher's own work, whose names begin with a dot, and of text pipelines."""
    found, pipelines = {}, layout.pipelines(folder)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        own = any(part.startswith(".") for part in name.parts) or name.parts[0] in pipelines
        if path.is_file() and not own:
            status = path.stat()
            found[name.as_posix()] = (status.st_size, status.st_mtime_ns, status.st_ino)
    return found


def _upload(store: Store, folder: Path, before: Files, known: Mapping[str, Tag], held: Lease) -> None:
    """Delete what is gone, then write versions and histories, what makes them live, and the cards."""
    after = _files(folder)
    changed = [name for name, state in after.items() if before.get(name) != state]
    if not (changed or before.keys() - after.keys()):
        return
    held.renew()
    # files of a version never change: an interrupted one made room for another of its number
    replaced = {_version_of(name) for name in changed if _is_version(name) and name in before}
    gone = {name for name in before if name not in after or (_is_version(name) and _version_of(name) in replaced)}
    _delete(store, gone)
    versions = [name for name in changed if _is_version(name)]
    histories, configs, cards = ([name for name in changed if _is_of_model(name, own)] for own in (HISTORY, CONFIG, CARD))
    first = {name.partition("/")[0] for name in configs if name not in known}
    _write(store, folder, (name for name in versions if not name.endswith(f"/{PROVENANCE}")))
    for name in histories:
        _swap(store, folder, name, known.get(name))
    for name in (name for name in versions if name.endswith(f"/{PROVENANCE}")):
        _swap(store, folder, name, None)  # a number is given once
    _write(store, folder, (name for name in cards if name.partition("/")[0] in first))
    held.renew()
    for name in configs:
        _swap(store, folder, name, known.get(name))
        log.info("%s/%s: uploaded", store.url, name)
    _write(store, folder, (name for name in cards if name.partition("/")[0] not in first))


def _delete(store: Store, names: Iterable[str]) -> None:
    """Delete files of versions, their provenance first: from then on the version is not there."""
    for name in sorted(names, key=lambda name: (not name.endswith(f"/{PROVENANCE}"), name)):
        store.delete([name])


def _write(store: Store, folder: Path, names: Iterable[str]) -> None:
    for name in names:
        store.put(name, folder / name)


def _swap(store: Store, folder: Path, name: str, tag: Tag | None) -> None:
    """Write what nobody else has written meanwhile."""
    try:
        store.swap(name, (folder / name).read_bytes(), tag)
    except Changed as error:
        raise MachineError(
            f"model repository {store.url}: {name} was changed by another publisher meanwhile. Nothing went live; run the "
            "command again"
        ) from error
