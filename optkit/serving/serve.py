"""`optkit serve`: a repository served until Ctrl-C."""

import json
import shlex
import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from optkit.core import temporary
from optkit.core.errors import InputError, MachineError
from optkit.core.json_door import parse_json
from optkit.core.printable import say
from optkit.serving import config as configuration
from optkit.serving import ensemble, install, log, repository
from optkit.serving.front_process import LARGEST_BODY
from optkit.serving.server import Server


class _Asked(Exception):
    """Ctrl-C, or a signal that asks for the end: unwinds as an error does, so that another signal lets it finish."""


def serve(
    repository_folder: Path,
    http_port: int = 8000,
    logs: Path | None = None,
    cache_mb: int = 0,
    grpc: bool = False,
    largest_body: int = LARGEST_BODY,
) -> None:
    """Serve every model of a repository until Ctrl-C; where to ask is printed to standard error.

    A server that ends by itself is started again, which is printed too.

    Args:
        repository_folder: the model repository.
        http_port, cache_mb, grpc, largest_body: as of `Server`.
        logs: folder for the server's log; a new one if None.

    Raises:
        InputError: the repository has no models, or one for a backend that the server does not have.
        MachineError: the server is not installed, the port is taken, or a model cannot be loaded.
    """
    names = _served(repository_folder)
    for name in names:
        _require_backend(repository_folder, name)
    settings: dict[str, Any] = {"cache_mb": cache_mb, "grpc": grpc, "largest_body": largest_body}
    with (
        suppress(_Asked),
        nullcontext(logs) if logs else temporary.folder("optkit-serve", keep_after=MachineError) as kept,
        Server(repository_folder, kept, names, http_port=http_port, grace_s=5.0, **settings) as server,
    ):
        try:
            say(f"serving {', '.join(names)} on http://{server.url} (log: {server.log})")
            if grpc:
                say(f"gRPC on {server.grpc_url}")
            asked = [name for name in names if ensemble.pipeline(name) in names]
            if asked:
                say(f"try: optkit ask {asked[0]} TEXT --url {server.url}")
            say(f"try: {_curl(server, names[0])}")
            while True:
                _keep_alive(server)
                threading.Event().wait(0.5)
        except (KeyboardInterrupt, SystemExit) as end:
            say("stopping")
            raise _Asked from end


def _served(folder: Path) -> tuple[str, ...]:
    """Names of the models to load, without those that pipelines load as their steps."""
    names = tuple(repository.models(Path(folder)))
    names = tuple(name for name in names if name not in {step for model in names for step in ensemble.steps(model)})
    if not names:
        raise InputError(
            f"model repository {folder}: found no models, expected at least one. Publish one first: "
            "optkit publish RECIPE --task TASK"
        )
    return names


def _require_backend(folder: Path, name: str) -> None:
    """Refuse a model that is for a server with other backends, as NVIDIA's containers are."""
    path = Path(folder, name, configuration.FILE)
    found = configuration.parse(path.read_text(encoding="utf-8", errors="replace"), str(path))
    backend = found.backend or found.platform
    if backend != "ensemble" and not (install.find().backends / backend).is_dir():
        raise InputError(
            f"model {name!r} in {folder}: is for Triton's backend {backend!r}, which this server does not have. Serve it in "
            "NVIDIA's container, by the command that optkit build printed, or build it again with --flavour python"
        )


def _keep_alive(server: Server) -> None:
    """Start a server again that has ended by itself."""
    if server.alive():
        return
    started = time.monotonic()
    say(f"Triton server on {server.url} ended ({server.how_it_ended()}); starting it again. {server.log} says:")
    say(log.quote(server.log))
    names = _served(server.repository)
    server.restart(names)
    say(f"serving {', '.join(names)} on http://{server.url} again, after {time.monotonic() - started:.1f} s")


def _curl(server: Server, model: str) -> str:
    """A command line that asks the model one question."""
    config = parse_json(server.owner.ask("GET", f"/v2/models/{quote(model)}/config", 5.0)[1], server.url)
    address = f"http://{server.url}/v2/models/{quote(model)}/infer"
    return f"curl {address} -d {shlex.quote(json.dumps({'inputs': _example(config)}))}"


def _example(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A request that the model takes: `[CLS] [SEP]` in BERT's vocabulary, the last word twice in a smaller one."""
    stated = config.get("parameters", {}).get("vocab_size")
    ids = [min(one, int(stated["string_value"]) - 1) if stated else one for one in (101, 102)]
    values = {"input_ids": ids, "attention_mask": [1, 1]}
    return [
        {"name": item["name"], "shape": [1, 2], "datatype": "INT64", "data": values.get(item["name"], [0, 0])}
        for item in config["input"]
    ]
