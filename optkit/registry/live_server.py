"""A Triton server that runs already, with explicit model control: loading, probing, switching and going back."""

import http.client
import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TypedDict
from urllib.parse import quote, urlsplit

from tritonclient.utils import InferenceServerException

from optkit.core import json_door
from optkit.core.errors import MachineError, OptkitError
from optkit.core.json_door import parse_json
from optkit.core.patience import Patience
from optkit.registry import smoke_test
from optkit.registry.disk import UNFINISHED
from optkit.registry.smoke_test import Probes
from optkit.serving import log as server_log
from optkit.serving import ticket as tickets
from optkit.serving.client import Client
from optkit.serving.connection import address
from optkit.serving.ticket import Ticket

DEADLINE_S = 300.0
_POLL_S, _GRPC_S = 0.05, 5.0
log = logging.getLogger(__name__)
_FOREIGN = "is another server than Triton listening there?"


class _Server(TypedDict):
    name: str


class _Model(_Server, total=False):
    version: str
    state: str


class _Parameter(TypedDict, total=False):
    string_value: str


class _Config(TypedDict, total=False):
    parameters: dict[str, _Parameter]


class Running:
    """A server by its address.

    Models are loaded over gRPC where the server has it on the port after that of HTTP, as Triton does: a server's HTTP
    thread that loads a model answers nobody else on its connections meanwhile.

    Args:
        url: `host:port` of its HTTP protocol, with or without `http://`.
        deadline_s: seconds for loading a model.

    Raises:
        InputError: the address is none.
    """

    def __init__(self, url: str, deadline_s: float = DEADLINE_S) -> None:
        self.url = address(url)
        self.deadline_s = deadline_s

    def require(self) -> None:
        """Be sure that it answers, and rid it of what publishers that were killed have left loaded.

        Raises:
            MachineError: it does not answer.
        """
        _ = self._ticket, self._grpc_url  # looked for now, so that whatever is undone later needs nothing new
        for name in {name for name, _ in self._states() if name.startswith(UNFINISHED)}:
            log.warning("Triton server on %s: %s is left from an interrupted publishing; unloaded", self.url, name)
            self.unload(name)

    def load(self, model: str) -> None:
        """Load a model, or bring it into line with its configuration on disk; the old version answers meanwhile.

        Raises:
            MachineError: the server cannot, or is gone.
        """
        self._control(model, "load")

    def unload(self, model: str) -> None:
        """Unload a model, and wait until it is gone; requests in flight are answered first.

        Raises:
            MachineError: the server cannot, or is gone.
        """
        self._control(model, "unload")
        patience = Patience(self.deadline_s)
        while any(state in ("READY", "UNLOADING") for (name, _), state in self._states().items() if name == model):
            if patience.is_over():
                raise MachineError(f"{self}: model {model!r} is not unloaded after {self.deadline_s:g} s")
            time.sleep(_POLL_S)

    def live(self, model: str) -> list[int]:
        """The versions of a model that answer.

        Raises:
            MachineError: the server is gone, or another one.
        """
        found = [version for (name, version), state in self._states().items() if name == model and state == "READY"]
        if wrong := [version for version in found if not re.fullmatch(r"[0-9]{1,18}", version)]:
            raise MachineError(f"{self}: has version {wrong[0][:60]!r} of model {model!r}, expected a number; {_FOREIGN}")
        return [*map(int, found)]

    def parameter(self, model: str, name: str) -> str | None:
        """What the configuration of a loaded model says under a name of ours."""
        status, body = self._ask(f"/v2/models/{quote(model)}/config", "GET")
        if status != http.client.OK:
            return None
        found = parse_json(body, self, _Config, _FOREIGN, MachineError).get("parameters", {})
        return found.get(name, {}).get("string_value")

    def check(self, model: str, probes: Probes, version: int | None = None) -> dict[str, float]:
        """Ask a model, or one version of it, all probes.

        Raises:
            GateError: an answer is wrong.
            MachineError: the server is gone, or does not answer in time.
        """
        with closing(Client(self.url, model, timeout_s=smoke_test.TIMEOUT_S, version=version)) as client:
            return smoke_test.check(client, probes, f"model {model!r} on {self}")

    @contextmanager
    def trial(self, folder: Path) -> Iterator[str]:
        """A staged model, served under its folder's name beside all others for as long as the block lasts.

        Raises:
            MachineError: the server rejects it, or is gone.
        """
        try:
            self.load(folder.name)
            yield folder.name
        except BaseException:
            with suppress(OptkitError):  # a server that is gone has nothing loaded
                self.unload(folder.name)
            raise
        self.unload(folder.name)

    def __str__(self) -> str:
        return f"Triton server {self.url}"

    def _states(self) -> dict[tuple[str, str], str]:
        """Return `{(model, version): state}`."""
        status, body = self._ask("/v2/repository/index")
        if status == http.client.FORBIDDEN:
            raise MachineError(
                f"{self}: only the user who started it, on that machine, controls its models; found no secret of it in "
                f"{tickets.path(urlsplit(f'//{self.url}').port or 0).parent}"
            )
        found = parse_json(body, f"{self}, list of models (status {status})", list[_Model], _FOREIGN, MachineError)
        return {(item["name"], item.get("version", "")): item.get("state", "") for item in found}

    def _control(self, model: str, verb: str) -> None:
        if self._grpc_url is not None:
            refusal = self._control_by_grpc(self._grpc_url, model, verb)
        else:
            status, body = self._ask(f"/v2/repository/models/{quote(model)}/{verb}")
            refusal = None if status == http.client.OK else server_log.reason(body)
        if refusal is not None:
            raise MachineError(
                f"{self}: cannot {verb} model {model!r}: {refusal}. Does it serve this repository (one with --trust serves "
                "a copy), and with --model-control-mode=explicit? Only the user who started `optkit serve`, on that "
                "machine, controls its models. Its log says more"
            )

    def _control_by_grpc(self, url: str, model: str, verb: str) -> str | None:
        """Why the server cannot, or None."""
        from tritonclient.grpc import InferenceServerClient

        with InferenceServerClient(url) as client:
            do = client.load_model if verb == "load" else client.unload_model
            try:
                do(model, client_timeout=self.deadline_s)
            except InferenceServerException as error:
                if error.status() in ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED"):
                    self._ask("/v2")  # whether the server is there at all
                return str(error.message())
        return None

    @cached_property
    def _name(self) -> str:
        """Return what the server calls itself."""
        status, body = self._ask("/v2", "GET", {})
        return str(parse_json(body, f"{self}, status {status}", _Server, _FOREIGN, MachineError)["name"])

    @cached_property
    def _ticket(self) -> Ticket | None:
        """Return the server's ticket, if it is `optkit serve` of this user."""
        return tickets.find(self.url, self._name)

    @cached_property
    def _grpc_url(self) -> str | None:
        """Return the gRPC address of the same server: that of its ticket, or the port after HTTP's if it has none."""
        from tritonclient.grpc import InferenceServerClient

        if self._ticket is not None:
            url = self._ticket.grpc
        else:
            parts = urlsplit(f"//{self.url}")
            url = f"{parts.hostname}:{(parts.port or 0) + 1}"
        if url is not None:
            with InferenceServerClient(url) as client:
                try:
                    if client.get_server_metadata(client_timeout=_GRPC_S).name == self._name:
                        return url
                except InferenceServerException:
                    pass  # nobody there, or somebody else
        where = url or "a socket, as the server was started with --grpc"
        log.warning("%s: no gRPC on %s; loading a model over HTTP holds up some of the others' requests", self, where)
        return None

    def _ask(self, path: str, method: str = "POST", headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        if headers is None:
            headers = {tickets.HEADER: self._ticket.secret} if self._ticket else {}
        with closing(http.client.HTTPConnection(self.url, timeout=self.deadline_s)) as connection:
            try:
                connection.request(method, path, headers=headers)
                response = connection.getresponse()
                return response.status, response.read(json_door.LARGEST)
            except (OSError, http.client.HTTPException) as error:
                raise MachineError(
                    f"{self}: does not answer: {error or type(error).__name__}. Is it running there?"
                ) from error
