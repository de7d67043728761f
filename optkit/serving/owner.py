"""Requests of a server's owner, who knows its secret: what it is, and models that it loads and unloads."""

import http.client
from pathlib import Path
from typing import Any
from urllib.parse import quote

from optkit.core.errors import MachineError
from optkit.core.json_door import parse_json
from optkit.serving import log, ticket


class Owner:
    """Asks a server of this process.

    Args:
        url: `host:port` of its HTTP protocol.
        secret: of its ticket.
        log: of the server, which errors quote.
    """

    def __init__(self, url: str, secret: str, log: Path) -> None:
        self._url, self._secret, self._log = url, secret, log

    def metadata(self, timeout_s: float) -> dict[str, Any]:
        """Return what the server says of itself."""
        body = self.ask("GET", "/v2", timeout_s)[1]
        return parse_json(body, self._url, dict[str, Any], "end what listens there", MachineError)

    def control(self, model: str, verb: str, timeout_s: float) -> None:
        """Have it `load` or `unload` a model.

        Raises:
            MachineError: it cannot, or does not answer; the message quotes its log.
        """
        try:
            status, body = self.ask("POST", f"/v2/repository/models/{quote(model)}/{verb}", timeout_s)
        except (OSError, http.client.HTTPException) as error:
            raise MachineError(
                f"model {model!r}: Triton server on {self._url} did not {verb} it: {error or type(error).__name__}. "
                f"{self._log} says:\n{log.quote(self._log)}"
            ) from error
        if status != http.client.OK:
            raise MachineError(
                f"model {model!r}: Triton server on {self._url} cannot {verb} it: {log.reason(body)}\n"
                f"{self._log} says:\n{log.quote(self._log)}"
            )

    def ask(self, method: str, path: str, timeout_s: float) -> tuple[int, bytes]:
        """Send a request; returns status and body of the answer."""
        connection = http.client.HTTPConnection(self._url, timeout=timeout_s)
        try:
            connection.request(method, path, headers={ticket.HEADER: self._secret})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()
