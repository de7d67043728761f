"""The first trial: a staged model on a server of its own, which nobody else asks."""

import logging
from pathlib import Path
from typing import Any

from optkit.core import temporary
from optkit.core.errors import OptkitError
from optkit.registry import shadow, smoke_test, text_pipeline
from optkit.registry.release import Release
from optkit.registry.shadow import Shadow
from optkit.registry.text_pipeline import Words
from optkit.serving.client import Client
from optkit.serving.server import Server
from optkit.serving.text_client import TextClient

log = logging.getLogger(__name__)
_WHAT = "the new version on a scratch server"


def check(staged: Path, release: Release, beside: Shadow | None = None) -> dict[str, Any]:
    """Serve a staged model under its folder's name, ask it all probes, and compare it with a live one.

    Args:
        staged: the model's folder, somewhere in a repository.
        release: says what to ask.
        beside: the live model to compare with, if there is one.

    Returns:
        `served_by`, `relative_difference` {probe: value}, `text` (how many answers differ), and `shadow`.

    Raises:
        GateError: it answers something else than its engine, or too often something else than the live model.
        MachineError: it cannot be served; the log that the message names is kept.
    """
    log.info("trying out %s on a scratch server", staged.name)
    with (
        temporary.folder("optkit-publish", keep_after=OptkitError) as logs,
        Server(staged.parent, logs, [staged.name]) as server,
        Client(server.url, staged.name, timeout_s=smoke_test.TIMEOUT_S) as client,
    ):
        found: dict[str, Any] = {"served_by": f"tritonserver {server.version()}"}
        found["relative_difference"] = smoke_test.check(client, release.probes, _WHAT, release.decisions)
        if release.words is not None:
            found["text"] = _check_text(server, staged, release, release.words)
        if beside is not None:
            found["shadow"] = shadow.compare(client, beside, release.decisions)
    return found


def _check_text(server: Server, staged: Path, release: Release, asked: Words) -> dict[str, int]:
    """Serve the staged model's text pipeline as well, and ask it its probe."""
    with text_pipeline.staged(staged, asked, release.config) as pipeline:
        server.load(pipeline)
        with TextClient(server.url, pipeline) as client:
            return {"asked": len(asked.texts), "differ": text_pipeline.check(client, asked.probe, f"{_WHAT}, asked in text")}
