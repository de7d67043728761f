"""A connection to one model on a Triton server, with a deadline for each request: inference by `Wire`, the rest by
`tritonclient`."""

import http.client
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NotRequired, Self, TypedDict
from urllib.parse import urlsplit

import gevent
import numpy as np
from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from optkit.core.errors import InputError, MachineError
from optkit.core.json_door import checked
from optkit.core.patience import TICK_S, Patience
from optkit.serving import ticket
from optkit.serving.wire import Wire

TIMEOUT_S = 60.0


class _Named(TypedDict):
    name: str


class _Tensor(_Named):
    datatype: str
    shape: list[int]


class _Metadata(TypedDict):
    inputs: list[_Tensor]
    outputs: list[_Tensor]


class _Parameter(TypedDict, total=False):
    string_value: str


class _Config(TypedDict):
    input: list[_Named]
    output: list[_Named]
    parameters: NotRequired[dict[str, _Parameter]]
    max_batch_size: NotRequired[int]
    backend: NotRequired[str]
    platform: NotRequired[str]


class _State(_Named, total=False):
    state: str


class Connection:
    """One model on one server. May be used from several threads: each has its own connection, which is kept open.

    Args:
        url: `host:port` of the server's HTTP protocol.
        model: the model's name.
        timeout_s: seconds for one request, its answer included.
        version: the model's version; the server's choice if None.
    """

    def __init__(self, url: str, model: str, timeout_s: float = TIMEOUT_S, version: int | None = None) -> None:
        self.url = url
        self.model = model
        self.timeout_s = timeout_s
        self.version = "" if version is None else str(version)
        self._local = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def statistics(self) -> dict[str, Any]:
        """The server's own counts of this model since it was loaded: `inference_count` (rows), `execution_count`
        (batches run) and the others of Triton's statistics extension.

        Raises:
            MachineError: the server is gone, does not answer in time, or fails.
        """
        with self._deadline("statistics"):
            found = self._connection().get_inference_statistics(self.model, self.version, headers=self._secret())
            return found["model_stats"][0]

    def metadata(self) -> dict[str, Any]:
        """What the server says of the model: `inputs` and `outputs` with `name`, `datatype` and `shape`, and others.

        Raises:
            InputError: there is no such model.
            MachineError: the server is gone, does not answer in time, or fails.
        """
        with self._deadline("metadata"):
            found = self._connection().get_model_metadata(self.model, self.version)
        return self._checked(found, _Metadata, "metadata")

    def config(self) -> dict[str, Any]:
        """The model's configuration as the server has it.

        Raises:
            As `metadata` does.
        """
        with self._deadline("configuration"):
            found = self._connection().get_model_config(self.model, self.version)
        return self._checked(found, _Config, "configuration")

    def ready(self) -> bool:
        """Whether the server answers for the model.

        Raises:
            MachineError: the server is gone, does not answer in time, or fails.
        """
        with self._deadline("readiness"):
            return self._connection().is_model_ready(self.model, self.version)

    def others(self, suffix: str = "") -> str:
        """Names of the models that the server answers for, without a suffix that all of them have, for a message.

        Raises:
            MachineError: the server is gone, does not answer in time, or fails.
        """
        with self._deadline("list of models"):
            try:
                found = self._connection().get_model_repository_index(headers=self._secret())
            except InferenceServerException as error:
                if error.status() == str(int(http.client.FORBIDDEN)):
                    return "(only the user who serves may list them)"
                raise
        index = self._checked(found, list[_State], "list of models")
        names = sorted({item["name"] for item in index if item.get("state") == "READY" and item["name"].endswith(suffix)})
        return ", ".join(name.removesuffix(suffix) for name in names) or "none"

    def server(self) -> str:
        """Name and version of the server, by its own account.

        Raises:
            MachineError: the server is gone, does not answer in time, or fails.
        """
        with self._deadline("version"):
            return f"tritonserver {self._connection().get_server_metadata()['version']}"

    def close(self) -> None:
        """Close this thread's connections; the next request opens others."""
        for name in ("connection", "wire"):
            if (opened := self._local.__dict__.pop(name, None)) is not None:
                opened.close()

    def _connection(self) -> InferenceServerClient:
        if not hasattr(self._local, "connection"):
            # `_deadline` bounds connecting, sending and receiving together
            self._local.connection = InferenceServerClient(self.url, connection_timeout=None, network_timeout=None)
        return self._local.connection

    def _wire(self) -> Wire:
        """The connection for inference, which bounds each request's time itself."""
        if not hasattr(self._local, "wire"):
            self._local.wire = Wire(self.url, self.timeout_s)
        return self._local.wire

    def _secret(self) -> dict[str, str]:
        """The header for what only a server's owner may ask, where this user owns it."""
        owned = ticket.find(self.url, self._connection().get_server_metadata()["name"])
        return {ticket.HEADER: owned.secret} if owned else {}

    @contextmanager
    def _deadline(self, what: str) -> Iterator[None]:
        """Bound the time of what is asked by `tritonclient`, and name it in errors."""
        with self._named(what), _limited(self.timeout_s):
            yield

    @contextmanager
    def _named(self, what: str) -> Iterator[None]:
        """Turn everything that can go wrong with the server into an error that names it, the model and the request."""
        who = f"Triton server on {self.url}, model {self.model!r}, {what}"
        try:
            yield
        except InferenceServerException as error:
            kind = InputError if error.status() == "400" else MachineError
            raise kind(f"{who}: refused with status {error.status()}: {error.message()}") from error
        except (gevent.Timeout, TimeoutError) as error:
            self.close()
            raise MachineError(f"{who}: no answer within {self.timeout_s:g} s. Look into the server's log") from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise MachineError(
                f"{who}: the connection failed: {error or type(error).__name__}. Is the server still running?"
            ) from error
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:  # from reading the answer
            self.close()
            raise MachineError(
                f"{who}: the answer is not a Triton server's ({type(error).__name__}: {error}). "
                "Is another server listening there?"
            ) from error

    def _checked(self, found: Any, kind: Any, what: str) -> Any:
        where = f"Triton server on {self.url}, model {self.model!r}, {what}"
        return checked(found, kind, where, "is another server listening there?", MachineError)

    def _foreign(self, what: str, found: str, expected: str) -> MachineError:
        return MachineError(
            f"Triton server on {self.url}, model {self.model!r}, {what}: found {found}, expected {expected}. "
            "Is another server listening there?"
        )


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise `gevent.Timeout` in the block when it has taken so long, the time left out that this process was stopped.

    `gevent.Timeout` would be over as soon as a process that was stopped goes on, although the answer is there.
    """
    asking, late, patience = gevent.getcurrent(), gevent.Timeout(), Patience(seconds)
    timer = gevent.get_hub().loop.timer(tick := min(TICK_S, seconds) / 4, repeat=tick)
    timer.start(lambda: asking.throw(late) if patience.is_over() else None)
    try:
        yield
    finally:
        timer.stop()
        timer.close()


def address(url: str) -> str:
    """`host:port` from what a user gave, with or without `http://`.

    Raises:
        InputError: it is none.
    """
    parts: Any = urlsplit(url if "//" in url else f"//{url}")
    try:
        right = parts.scheme in ("", "http") and parts.hostname and parts.port and parts.path in ("", "/")
    except ValueError:  # a port that is no number
        right = False
    if not right:
        raise InputError(f"--url {url!r}: expected host:port of a Triton server's HTTP protocol, such as 127.0.0.1:8000")
    return str(parts.netloc)


def tensors(feed: Mapping[str, np.ndarray]) -> list[InferInput]:
    """A request's inputs."""
    found = []
    for name, array in feed.items():
        tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        found.append(tensor)
    return found
