"""Asks a tensor model on a Triton server: HTTP with binary tensors, with a deadline for each request."""

import itertools
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from typing import Any

import numpy as np

from optkit.core.errors import InputError
from optkit.serving.client_threads import ClientThreads
from optkit.serving.config import OUTPUT, per_token
from optkit.serving.connection import TIMEOUT_S, Connection, tensors

Feed = Mapping[str, np.ndarray]


class Client(Connection):
    """A tensor model on a server. May be used from several threads: each has its own connection, which is kept open.

    Args:
        url: `host:port` of the server's HTTP protocol.
        model: the model's name.
        timeout_s: seconds for one request, its answer included.
        version: the model's version; the server's choice if None.
    """

    def __init__(self, url: str, model: str, timeout_s: float = TIMEOUT_S, version: int | None = None) -> None:
        super().__init__(url, model, timeout_s, version)
        self._numbers = itertools.count()
        self._logits: list[int] | None = None

    def infer(self, feed: Feed) -> np.ndarray:
        """Ask once.

        Args:
            feed: int64 [batch, sequence] for each input of the model.

        Returns:
            Float32 logits [batch, …], of the shape that the model declares.

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
        """Ask as `infer_many` does, and return each request's milliseconds [requests], from sending it to its answer."""
        return np.array([latency_ms for _, latency_ms in self._many(feeds, concurrency)])

    @property
    def per_token(self) -> bool:
        """Whether the logits have an entry for each token, as the server declares it.

        Raises:
            MachineError: the server is gone, does not answer in time, or has another kind of model.
        """
        with self._deadline("metadata"):
            return per_token(self._expected()[1:])

    def _many(self, feeds: Sequence[Feed], concurrency: int) -> list[tuple[np.ndarray, float]]:
        """Answer and milliseconds for each feed."""
        if concurrency < 1:
            raise InputError(f"client of {self.model!r}: found concurrency {concurrency}, expected 1 or more")
        with ClientThreads(self, min(concurrency, len(feeds) or 1)) as threads:
            asked = [threads.submit(self._timed, feed, number) for number, feed in enumerate(feeds)]
            try:
                wait(asked, return_when=FIRST_EXCEPTION)
            finally:
                for request in asked:
                    request.cancel()  # after a failure or Ctrl-C those that have not begun
        return [request.result() for request in asked if not request.cancelled()]

    def _timed(self, feed: Feed, number: int) -> tuple[np.ndarray, float]:
        started = time.perf_counter()
        answer = self._infer(feed, number)
        return answer, (time.perf_counter() - started) * 1e3

    def _infer(self, feed: Feed, number: int) -> np.ndarray:
        inputs, what = tensors(feed), f"request {number}"
        with self._deadline(what):
            shape = self._expected()
        with self._named(what):
            answer = self._wire().infer(self.model, inputs, self.version, str(number))
            self._check(answer.get_response(), shape, feed, number)
            return answer.as_numpy(OUTPUT)

    def _expected(self) -> list[int]:
        """Shape of the logits as the server declares it, asked once: -1 for the batch and, if it is second, for tokens."""
        if self._logits is None:
            self._logits = self._declared()
        return self._logits

    def _declared(self) -> list[int]:
        metadata = self._connection().get_model_metadata(self.model, self.version)
        shapes = {output["name"]: output["shape"] for output in metadata["outputs"]}
        if metadata["name"] != self.model or OUTPUT not in shapes:
            raise self._foreign("the metadata", f"model {metadata['name']!r} with outputs {list(shapes)}", OUTPUT)
        return shapes[OUTPUT]

    def _check(self, response: dict[str, Any], declared: Sequence[int], feed: Feed, number: int) -> None:
        batch, sequence = next(iter(feed.values())).shape
        shape = [batch, *(sequence if size == -1 else size for size in declared[1:])]
        answered = response.get("model_version") if self.version else ""  # not asked for: the server's choice
        expected = (self.model, self.version, str(number), [(OUTPUT, "FP32", shape)])
        outputs = [(output["name"], output["datatype"], output["shape"]) for output in response.get("outputs", [])]
        found = (response.get("model_name"), answered, response.get("id"), outputs)
        if found != expected:
            raise self._foreign(f"request {number}", f"{found}", f"{expected}")
