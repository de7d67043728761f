"""Asks a model on a Triton server: HTTP with binary tensors, by `tritonclient`, with a deadline for each request."""

import http.client
import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import gevent
import numpy as np
from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from optkit.errors import InputError, MachineError
from optkit.serving.config import OUTPUT

Feed = Mapping[str, np.ndarray]
TIMEOUT_S = 60.0


class Client:
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
        self._numbers = itertools.count()
        self._logits: list[int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def infer(self, feed: Feed) -> np.ndarray:
        """Ask once.

        Args:
            feed: int64 [batch, sequence] for each input of the model.

        Returns:
            Float32 logits [batch, classes] or [batch, sequence, 2].

        Raises:
            InputError: the server refuses the request (status 400): a shape, a dtype, a value, a missing input.
            MachineError: the server is gone, does not answer in time, fails, or answers something else.
        """
        return self._infer(feed, next(self._numbers))

    def infer_many(self, feeds: Sequence[Feed], concurrency: int = 1) -> list[np.ndarray]:
        """Ask with up to `concurrency` requests on their way at the same time; the answers are in the feeds' order.

        Raises:
            As `infer` does, for the first request that fails; its number is the feed's index. The others are dropped.
        """
        return [answer for answer, _ in self._many(feeds, concurrency)]

    def time_many(self, feeds: Sequence[Feed], concurrency: int = 1) -> np.ndarray:
        """As `infer_many`, but gives the milliseconds [requests] that each took, from sending it to its answer."""
        return np.array([latency_ms for _, latency_ms in self._many(feeds, concurrency)])

    def statistics(self) -> dict[str, Any]:
        """The server's own counts of this model since it was loaded: `inference_count` (rows), `execution_count`
        (batches run) and the others of Triton's statistics extension.

        Raises:
            MachineError: as `infer` does.
        """
        with self._deadline("statistics"):
            return self._connection().get_inference_statistics(self.model, self.version)["model_stats"][0]

    def metadata(self) -> dict[str, Any]:
        """What the server says of the model: `inputs` and `outputs` with `name`, `datatype` and `shape`, and others.

        Raises:
            InputError: there is no such model.
            MachineError: as `infer` does.
        """
        with self._deadline("metadata"):
            return self._connection().get_model_metadata(self.model, self.version)

    def config(self) -> dict[str, Any]:
        """The model's configuration as the server has it.

        Raises:
            As `metadata` does.
        """
        with self._deadline("configuration"):
            return self._connection().get_model_config(self.model, self.version)

    def models(self) -> list[str]:
        """Names of the models that the server answers for.

        Raises:
            MachineError: as `infer` does.
        """
        with self._deadline("list of models"):
            index = self._connection().get_model_repository_index()
            return sorted({item["name"] for item in index if item.get("state") == "READY"})

    def server(self) -> str:
        """Name and version of the server, by its own account.

        Raises:
            MachineError: as `infer` does.
        """
        with self._deadline("version"):
            return f"tritonserver {self._connection().get_server_metadata()['version']}"

    def close(self) -> None:
        """Close this thread's connection; the next request opens another one."""
        connection = self._local.__dict__.pop("connection", None)
        if connection is not None:
            connection.close()

    def _many(self, feeds: Sequence[Feed], concurrency: int) -> list[tuple[np.ndarray, float]]:
        """Answer and milliseconds for each feed."""
        if concurrency < 1:
            raise InputError(f"client of {self.model!r}: found concurrency {concurrency}, expected 1 or more")
        work = _Work(self, feeds)
        threads = [threading.Thread(target=work.run, daemon=True) for _ in range(min(concurrency, len(feeds)))]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            work.stopped = True  # Ctrl-C
        if work.failures:
            raise work.failures[min(work.failures)]
        return work.done

    def _infer(self, feed: Feed, number: int) -> np.ndarray:
        tensors = _tensors(feed)
        with self._deadline(f"request {number}"):
            if self._logits is None:
                self._logits = self._expected()
            answer = self._connection().infer(self.model, tensors, model_version=self.version, request_id=str(number))
            self._check(answer.get_response(), feed, number)
            return answer.as_numpy(OUTPUT)

    def _connection(self) -> InferenceServerClient:
        if not hasattr(self._local, "connection"):
            self._local.connection = InferenceServerClient(
                self.url, connection_timeout=self.timeout_s, network_timeout=self.timeout_s
            )
        return self._local.connection

    @contextmanager
    def _deadline(self, what: str) -> Iterator[None]:
        """Turn everything that can go wrong with the server into an error that names it, the model and the request."""
        who = f"Triton server on {self.url}, model {self.model!r}, {what}"
        try:
            with gevent.Timeout(self.timeout_s):
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
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # from reading the answer
            self.close()
            raise MachineError(
                f"{who}: the answer is not a Triton server's ({type(error).__name__}: {error}). "
                "Is another server listening there?"
            ) from error

    def _expected(self) -> list[int]:
        """Shape of the logits as the server declares it, [-1, classes] or [-1, -1, 2]."""
        metadata = self._connection().get_model_metadata(self.model, self.version)
        shapes = {output["name"]: output["shape"] for output in metadata["outputs"]}
        if metadata["name"] != self.model or OUTPUT not in shapes:
            raise self._foreign("the metadata", f"model {metadata['name']!r} with outputs {list(shapes)}", OUTPUT)
        return shapes[OUTPUT]

    def _check(self, response: dict[str, Any], feed: Feed, number: int) -> None:
        assert self._logits is not None
        batch, sequence = next(iter(feed.values())).shape
        shape = [batch, sequence, 2] if len(self._logits) == 3 else [batch, *self._logits[1:]]
        answered = response.get("model_version") if self.version else ""  # not asked for: the server's choice
        expected = (self.model, self.version, str(number), [(OUTPUT, "FP32", shape)])
        outputs = [(output["name"], output["datatype"], output["shape"]) for output in response.get("outputs", [])]
        found = (response.get("model_name"), answered, response.get("id"), outputs)
        if found != expected:
            raise self._foreign(f"request {number}", f"{found}", f"{expected}")

    def _foreign(self, what: str, found: str, expected: str) -> MachineError:
        return MachineError(
            f"Triton server on {self.url}, model {self.model!r}, {what}: found {found}, expected {expected}. "
            "Is another server listening there?"
        )


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


class _Work:
    """Requests that several threads take one by one."""

    def __init__(self, client: Client, feeds: Sequence[Feed]) -> None:
        self.client = client
        self.todo = iter(enumerate(feeds))
        self.lock = threading.Lock()
        self.done: list[Any] = [None] * len(feeds)
        self.failures: dict[int, Exception] = {}
        self.stopped = False

    def run(self) -> None:
        """Work until nothing is left or a request has failed."""
        try:
            while not self.stopped:
                with self.lock:
                    number, feed = next(self.todo, (-1, {}))
                if number < 0:
                    return
                self._ask(number, feed)
        finally:
            self.client.close()
            gevent.get_hub().destroy()  # the thread's own event loop, which would keep four file descriptors open

    def _ask(self, number: int, feed: Feed) -> None:
        started = time.perf_counter()
        try:
            answer = self.client._infer(feed, number)
        except Exception as error:  # raised again in the thread that waits for all
            self.failures[number] = error
            self.stopped = True
        else:
            self.done[number] = answer, (time.perf_counter() - started) * 1e3


def _tensors(feed: Feed) -> list[InferInput]:
    tensors = []
    for name, array in feed.items():
        tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    return tensors
