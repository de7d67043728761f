"""The text pipeline of a published model: its folders beside the model's are copies of what lies in the live version.

<repository>/<model>/<n>/text/<folder>    the pipeline's folders, made when the version was published
<repository>/<folder>                     copies of those of the live version

So a version that has the tokenizer and the labels of the one before touches nothing of this. Where they differ, the
pipeline is taken away first and put back when the new version is live: until then text is refused, as old tokens in a new
model would be answered wrongly. What is missing after an interruption is put back by whoever has the lock next.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optkit.core.atomic import flush, flush_tree, hashes, write_json
from optkit.core.errors import GateError, InputError, OptkitError
from optkit.core.json_door import read_json
from optkit.registry import disk
from optkit.registry.live_server import Running
from optkit.serving import config as configuration
from optkit.serving import ensemble
from optkit.serving.config import ModelConfig
from optkit.serving.text_client import TextClient

TEXT, PROBE = "text", "text-probe.json"
_SHARE = 8
"""Inverse of the share of answers that may differ from the scored ones: batches of another size round differently."""


@dataclass(frozen=True)
class Words:
    """Tokenizer, settings and probe that a release needs to take text."""

    source: Path
    """The folder with tokenizer and settings."""
    texts: Sequence[Sequence[str]]
    """Input texts, one list per probe."""
    answers: Sequence[str]
    """Answers of the served engine when it was scored, one per probe."""

    @property
    def digest(self) -> str:
        """SHA-256 of tokenizer and settings."""
        return ensemble.digest(self.source)

    @property
    def probe(self) -> dict[str, Any]:
        """Probe as stored beside a version."""
        return {"texts": [list(one) for one in self.texts], "answers": list(self.answers)}


def stage(version: Path, words: Words, config: ModelConfig) -> None:
    """Write the pipeline and its probe into a staged version's folder."""
    ensemble.stage(version / TEXT, words.source, config.name, config)
    write_json(version / PROBE, words.probe)


@contextmanager
def staged(model: Path, words: Words, config: ModelConfig) -> Iterator[str]:
    """The pipeline of a staged model beside it, under names that follow from the model's; gives the pipeline's."""
    try:
        ensemble.stage(model.parent, words.source, model.name, config)
        yield ensemble.pipeline(model.name)
    finally:
        for name in ensemble.names(model.name):
            shutil.rmtree(model.parent / name, ignore_errors=True)


def check(client: TextClient, probe: dict[str, Any], what: str) -> int:
    """Ask a pipeline its probe; returns how many answers differ from the scored ones.

    Raises:
        GateError: too many differ, or a text is refused.
        MachineError: the server is gone, or does not answer in time.
    """
    try:
        found = [str(answer) for answer in client.ask(probe["texts"])]
        differ = client.form.differing(found, probe["answers"])
    except InputError as error:
        raise GateError(f"{what}: refused text: {error}") from error
    if len(differ) > len(found) // _SHARE:
        first = differ[0]
        raise GateError(
            f"{what}: {len(differ)} of {len(found)} texts are answered otherwise than when the engine was scored; the first "
            f"is {probe['texts'][first]}: found {found[first]!r}, expected {probe['answers'][first]!r}"
        )
    return len(differ)


def complaints(model: Path, version: int) -> list[str]:
    """What differs between a model's pipeline and that of a version; nothing where an interruption left none."""
    folders = {name: model.parent / name for name in ensemble.names(model.name)}
    if not any(folder.exists() or folder.is_symlink() for folder in folders.values()):
        return []
    whole = folders[ensemble.pipeline(model.name)].exists()
    fix = f"put it right: optkit rollback {model.name} --to {version}"
    found = []
    for name, folder in folders.items():
        expected = hashes(model / str(version) / TEXT / name)
        links = [path for path in (folder, *folder.rglob("*")) if path.is_symlink()]
        there = hashes(folder) if folder.is_dir() and not links else {}  # what is behind a link is not looked at
        if not there and not links and not whole:
            continue
        wrong = [folder / one for one in sorted(expected.keys() | there.keys()) if expected.get(one) != there.get(one)]
        found += [f"{path}: not as version {version} was published; {fix}" for path in links or wrong]
    return found


def remove(model: Path, server: Running | None) -> None:
    """Take a model's pipeline away for good; for a model that is about to go itself."""
    for name in reversed(ensemble.names(model.name)):
        if server is not None:
            with suppress(OptkitError):
                server.unload(name)
        if (model.parent / name).exists():
            disk.remove(model.parent / name, model.parent)


def put_right(model: Path, version: int) -> None:
    """Have the pipeline on disk be that of a version; for the holder of the lock alone."""
    with switching(model, version, None) as switch:
        switch.withdraw()
        switch.put()


@contextmanager
def switching(model: Path, version: int, server: Running | None) -> Iterator["Switch"]:
    """The way of a model's pipeline to that of another version; the space for it is taken before."""
    with disk.staging(model.parent) as new, disk.staging(model.parent) as old:
        switch = Switch(model, version, server, new, old)
        if switch.moves:
            old.mkdir()
            shutil.copytree(switch.source, new) if switch.source.is_dir() else new.mkdir()
            flush_tree(new)
        yield switch


class Switch:
    """The folders of a pipeline on their way: away before the model switches, and back as the new version has them.

    Where they are the same, on disk and on the server, nothing is done.
    """

    def __init__(self, model: Path, version: int, server: Running | None, new: Path, old: Path) -> None:
        self.root, self.name, self.server, self.new, self.old = model.parent, model.name, server, new, old
        self.source = model / str(version) / TEXT
        self.probe = model / str(version) / PROBE
        names = ensemble.names(model.name)
        self.moves = [hashes(self.root / name) for name in names] != [hashes(self.source / name) for name in names]
        self.had = [name for name in names if (self.root / name).exists()]
        self.unloaded = self.loaded = False

    def withdraw(self) -> None:
        """Take the pipeline away, from the server first."""
        if self.server is not None and self._is_served_otherwise(self.server):
            self.unloaded = True
            for name in reversed(ensemble.names(self.name)):
                self.server.unload(name)
        if self.moves:
            self._move(self.root, self.old)

    def put(self) -> None:
        """Put the new one in its place, and have the server take it and answer.

        Raises:
            GateError, MachineError: the server does not.
        """
        if self.moves:
            self._move(self.new, self.root)
        if self.server is None or not self.source.is_dir():
            return
        pipeline = ensemble.pipeline(self.name)
        if not self.server.live(pipeline):
            self.loaded = True
            self.server.load(pipeline)
        with TextClient(self.server.url, pipeline) as client:
            check(client, read_json(self.probe), f"model {pipeline!r} on {self.server}")

    def undo(self) -> None:
        """Have everything on disk where it was; needs no space."""
        if not self.moves:
            return
        for name in reversed(ensemble.names(self.name)):
            if (self.root / name).exists() and (name not in self.had or (self.old / name).exists()):
                os.rename(self.root / name, self.new / name)
        self._move(self.old, self.root)

    def restore(self) -> None:
        """Have the server serve what it served, after it went back to the old version."""
        if self.server is None or not (self.unloaded or self.loaded):
            return
        for name in reversed(ensemble.names(self.name)):  # loading alone would keep newer files
            self.server.unload(name)
        if self.unloaded:
            self.server.load(ensemble.pipeline(self.name))

    def _is_served_otherwise(self, server: Running) -> bool:
        """Whether the server has a pipeline that is not the new version's."""
        pipeline = ensemble.pipeline(self.name)
        if not server.live(pipeline):
            return False
        path = self.source / pipeline / configuration.FILE
        if self.moves or not path.is_file():
            return True
        own = configuration.parse(path.read_text(encoding="utf-8"), str(path)).parameters[ensemble.DIGEST].string_value
        return server.parameter(pipeline, ensemble.DIGEST) != own

    def _move(self, start: Path, end: Path) -> None:
        """Rename what is there; the pipeline itself leaves first and arrives last, as it needs its steps."""
        names = ensemble.names(self.name)
        for name in reversed(names) if start == self.root else names:
            if (start / name).exists():
                os.rename(start / name, end / name)
        flush(start)
        flush(end)
