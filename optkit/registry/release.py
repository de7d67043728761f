"""Placing a version: staged, checked, sealed with its provenance, and live by the renaming of one file or folder."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from optkit.core.atomic import file_hash, flush, flush_tree, hashes
from optkit.core.errors import MachineError, OptkitError
from optkit.core.signature import now, who
from optkit.registry import chain, disk, history, layout, live_config, model_card, smoke_test, text_pipeline, verify
from optkit.registry.layout import CARD, CONFIG, HISTORY, PROBE, PROVENANCE
from optkit.registry.live_server import Running
from optkit.registry.signing import SIGNATURE, Signer, signed_by
from optkit.registry.smoke_test import Probes
from optkit.registry.text_pipeline import Words
from optkit.serving import config as configuration
from optkit.serving import repository
from optkit.serving.config import ModelConfig
from optkit.tasks.deciding import Decisions
from optkit.tasks.registry import TASKS

Check = Callable[[Path], dict[str, Any]]
"""Tries out a staged model's folder; returns what it found, or raises."""


@dataclass(frozen=True)
class Release:
    """What is to be published."""

    engine: Path
    """The engine's folder, whose files are copied."""
    config: ModelConfig
    """Triton configuration, with the model's name."""
    probes: Probes
    """Requests that it has to answer correctly before it goes live."""
    provenance: dict[str, Any]
    """What is known of it; model, version, checks, configuration and the files' SHA-256 are added."""
    forced: str | None = None
    """Why it is published although its gate says no."""
    words: Words | None = None
    """Tokenizer, settings and probe for text; None for tokens alone."""
    signer: Signer | None = None
    """Signs the version; None for one without a signature."""

    @property
    def decisions(self) -> Decisions:
        """What its predictions depend on, as its task says."""
        return TASKS.get(self.provenance["task"]).decider(self.provenance.get("thresholds", ()))


def place(root: Path, release: Release, check: Check, server: Running | None = None) -> Path:
    """Make a release the next version of its model, and the live one. The caller holds the repository's lock.

    Whatever fails, and whenever the process is killed, the repository serves what it served before, or the new version.

    Args:
        root: the model repository.
        release: what is published.
        check: tries it out before anything is visible.
        server: that serves the repository now, and goes over to the new version.

    Returns:
        The version's folder.

    Raises:
        InputError: the model's folder holds what publishing did not put there.
        GateError: the version answers a probe with something else than its engine.
        MachineError: the disk refuses, or the server rejects the version or is gone.
    """
    model = root / release.config.name
    version = _next_version(model)
    with disk.staging(root) as staged:
        with disk.changing(root, f"stage version {version} of {model.name!r}"):
            repository.stage(staged, release.engine, replace(release.config, live=version), version)
            smoke_test.write(staged / str(version) / PROBE, release.probes)
            if release.words is not None:
                text_pipeline.stage(staged / str(version), release.words, release.config)
        checks = check(staged)
        with disk.changing(root, f"stage version {version} of {model.name!r}"):
            _seal(staged, release, version, {"checks": checks, "history": history.head(model)})
        if server is not None:
            with server.trial(staged) as name:
                server.check(name, release.probes)
        with disk.changing(root, f"place version {version} of {model.name!r}"):
            (_add if model.exists() else _found)(staged, model, version, server)
    return model / str(version)


def already_live(root: Path, release: Release) -> int | None:
    """The live version where it is what a release would become, and is whole; else None. The caller holds the lock."""
    model = root / release.config.name
    if not model.exists():
        return None
    layout.check(model)
    with disk.changing(root, f"put {model.name!r} right"):
        history.mend(model)
    version = layout.live(model)
    origin = layout.provenance(model / str(version))
    same = (
        origin["engine"].get("files") == hashes(release.engine)
        and layout.config_of(model / str(version), version) == replace(release.config, live=version)
        and origin.get("text") == (release.words and release.words.digest)
        and (release.signer is None or release.signer.key_id == signed_by(model / str(version)))
    )
    return version if same and not verify.version(model / str(version)) else None


def go_live(model: Path, version: int, server: Running | None) -> None:
    """Make a version that is in its place the live one, or leave the one live that is; the history has its entry.

    Raises:
        GateError, MachineError: the server rejects it, answers with something else, or is gone.
    """
    content = live_config.content(model / str(version), history.live_entry(model))
    with (
        disk.prepared(model / CONFIG, (model / CONFIG).read_bytes()) as go_back,
        text_pipeline.switching(model, version, server) as pipeline,
    ):
        try:
            pipeline.withdraw()
            disk.replace(model / CONFIG, content)
            _follow(model, version, server)
            pipeline.put()
        except BaseException:
            pipeline.undo()
            go_back()
            if server is not None:
                with suppress(OptkitError):  # one that is gone will find the old configuration when it comes back
                    server.load(model.name)
                    pipeline.restore()
            raise


def _next_version(model: Path) -> int:
    """One more than any that is or was there: a number is not given twice."""
    layout.check_names(model)
    if not model.exists() and not model.is_symlink():
        return 1
    layout.check(model)
    with disk.changing(model.parent, f"put {model.name!r} right"):
        history.mend(model)
    return max([*repository.versions(model), *(event["version"] for event in history.read(model))]) + 1


def _seal(staged: Path, release: Release, version: int, more: dict[str, Any]) -> None:
    """Write configuration, card and provenance, the files' SHA-256 last, sign and flush everything."""
    folder, published = staged / str(version), {"at": now(), "by": who()}
    (folder / CONFIG).write_text(configuration.write(replace(release.config, live=version)), encoding="utf-8")
    forced = {"by": published["by"], "why": release.forced} if release.forced else None
    origin = {
        "model": release.config.name,
        "version": version,
        "published": published,
        "forced": forced,
        **more,
        "config": asdict(release.config),
        "text": release.words and release.words.digest,
        **release.provenance,
    }
    (folder / CARD).write_text(model_card.text(origin), encoding="utf-8")
    content = json.dumps({**origin, "files": hashes(folder)}, indent=1) + "\n"
    (folder / PROVENANCE).write_text(content, encoding="utf-8")
    if release.signer is not None:
        release.signer.sign(folder)
    flush_tree(staged)


def _event(model: Path, version: int, live: int | None) -> dict[str, Any]:
    """The entry of the history, from the version's own record."""
    folder = model / str(version)
    origin, stored = layout.provenance(folder), file_hash(folder / PROVENANCE)
    forced, replaced = origin["forced"], origin.get("replaced")
    more: dict[str, Any] = {"why": forced["why"], "forced": True} if forced else {}
    if (folder / SIGNATURE).is_file():
        more["signature"] = file_hash(folder / SIGNATURE)
    if replaced:
        more |= {"why": replaced["why"], "replaced": replaced["differences"]}
    return history.event(history.PUBLISHED, version, instead_of=live, provenance=stored, **more)


def _found(staged: Path, model: Path, version: int, server: Running | None) -> None:
    """Place a model's first version: the whole folder appears."""
    folder, text = staged / str(version), chain.extended("", _event(staged, version, None))
    disk.replace(staged / CARD, (folder / CARD).read_bytes())
    disk.replace(staged / HISTORY, text)
    disk.replace(staged / CONFIG, live_config.content(folder, history.live_entry(staged)))
    os.rename(staged, model)
    flush(model.parent)
    try:
        _follow(model, version, server)
        with text_pipeline.switching(model, version, server) as pipeline:
            pipeline.withdraw()
            pipeline.put()
    except BaseException:
        text_pipeline.remove(model, server)
        if server is not None:
            with suppress(OptkitError):
                server.unload(model.name)
        disk.remove(model, model.parent)
        raise


def _add(staged: Path, model: Path, version: int, server: Running | None) -> None:
    """Place a further version: its folder appears, not served yet, then the configuration makes it live."""
    event = _event(staged, version, layout.live(model))
    with history.recording(model, event, staged / str(version) / CARD):
        os.rename(staged / str(version), model / str(version))
        flush(model)
        try:
            go_live(model, version, server)
        except BaseException:
            if layout.live(model) != version:
                disk.remove(model / str(version), model.parent)
            raise


def _follow(model: Path, version: int, server: Running | None) -> None:
    """Have a running server go over to a version, and see that it answers."""
    if server is None:
        return
    server.load(model.name)
    if version not in (serving := server.live(model.name)):
        raise MachineError(f"{server}: serves the versions {serving} of {model.name!r}, expected {version}")
    probes = smoke_test.read(model / str(version) / PROBE)
    # the large ones it has answered in the trial; here they would hold up requests of others
    server.check(model.name, {name: probes[name] for name in ("min", smoke_test.SAMPLE) if name in probes})
