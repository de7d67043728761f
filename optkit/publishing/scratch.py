"""The first trial: a staged model on a server of its own, which nobody else asks."""

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

from optkit.publishing import probe, shadow
from optkit.publishing.probe import Probes
from optkit.publishing.shadow import Shadow
from optkit.serving.client import Client
from optkit.serving.server import Server

log = logging.getLogger(__name__)


def check(staged: Path, probes: Probes, beside: Shadow | None = None) -> dict[str, Any]:
    """Serve a staged model under its folder's name, ask it all probes, and compare it with a live one.

    Args:
        staged: the model's folder, somewhere in a repository.
        probes: what to ask.
        beside: the live model to compare with, if there is one.

    Returns:
        `served_by`, `relative_difference` {probe: value}, and `shadow`.

    Raises:
        GateError: it answers something else than its engine, or too often something else than the live model.
        MachineError: it cannot be served; the log that the message names is kept.
    """
    log.info("trying out %s on a scratch server", staged.name)
    logs = Path(tempfile.mkdtemp(prefix="optkit-publish-"))
    with (
        Server(staged.parent, logs, [staged.name]) as server,
        Client(server.url, staged.name, timeout_s=probe.TIMEOUT_S) as client,
    ):
        found: dict[str, Any] = {"served_by": f"tritonserver {server.version()}"}
        found["relative_difference"] = probe.check(client, probes, "the new version on a scratch server")
        if beside is not None:
            found["shadow"] = shadow.compare(client, beside)
    shutil.rmtree(logs)
    return found
