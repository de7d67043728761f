"""Asks a text pipeline on a Triton server: words in, the task's answer out."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from optkit.core.errors import InputError
from optkit.serving import ensemble
from optkit.serving.connection import TIMEOUT_S, Connection, tensors


class Label(NamedTuple):
    """The answer of a classifier."""

    label: str
    probability: float
    probabilities: dict[str, float]

    def __str__(self) -> str:
        return self.label


class Span(NamedTuple):
    """An answer to a question."""

    answer: str
    score: float
    """The sum of the answer's start and end logit."""
    start: int
    end: int
    """Its first character in the passage, and the one after its last."""
    others: tuple["Span", ...] = ()
    """The next best answers, where this is the best one."""

    def __str__(self) -> str:
        return self.answer


Answer = Label | Span


class TextClient(Connection):
    """The text pipeline of a model on a server.

    Args:
        url: `host:port` of the server's HTTP protocol.
        model: the tensor model's name, or the pipeline's own.
        timeout_s: seconds for one request, its answer included.
    """

    def __init__(self, url: str, model: str, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__(url, model if model.endswith(ensemble.SUFFIX) else ensemble.pipeline(model), timeout_s)
        self._served: dict[str, Any] | None = None

    def ask(self, texts: Sequence[Sequence[str]]) -> list[Answer]:
        """Ask once, or once for each question where the texts are questions.

        Args:
            texts: of each example its text, its two texts, or question and passage.

        Raises:
            InputError: the server has no such pipeline or refuses the request; or it takes another number of texts.
            MachineError: the server is gone, does not answer in time, fails, or answers something else.
        """
        served = self._configuration()
        fields = [tensor["name"] for tensor in served["input"]]
        for one in texts:
            if len(one) != len(fields):
                expected = f"{len(fields)}: {', '.join(fields)}"
                raise InputError(f"model {self.model!r}: found {len(one)} texts, expected {expected}")
        with self._deadline("request"):
            if "answer" not in (tensor["name"] for tensor in served["output"]):
                return self._labels(fields, texts, json.loads(served["parameters"]["labels"]["string_value"]))
            return [self._span(fields, one) for one in texts]

    def _configuration(self) -> dict[str, Any]:
        """What the server says of the pipeline, asked once."""
        if self._served is None:
            self._require()
            self._served = self.config()
        return self._served

    def _require(self) -> None:
        """Name what can be asked where this model cannot."""
        ready = [name for name in self.models() if name.endswith(ensemble.SUFFIX)]
        if self.model not in ready:
            have = ", ".join(name.removesuffix(ensemble.SUFFIX) for name in ready)
            raise InputError(
                f"Triton server on {self.url}: found no model {self.model!r}; models that take text: {have or 'none'}. "
                "Publish one there, or ask another one"
            )

    def _labels(self, fields: Sequence[str], texts: Sequence[Sequence[str]], labels: Sequence[str]) -> list[Answer]:
        columns = zip(fields, zip(*texts, strict=True), strict=True)
        answer = self._infer({name: np.array([[one.encode()] for one in column], object) for name, column in columns})
        rows = zip(*(answer.as_numpy(name) for name in ensemble.ANSWER["classification"]), strict=True)
        return [
            Label(label[0].decode(), float(share[0]), dict(zip(labels, map(float, shares), strict=True)))
            for label, share, shares in rows
        ]

    def _span(self, fields: Sequence[str], texts: Sequence[str]) -> Answer:
        feed = {name: np.array([one.encode()], object) for name, one in zip(fields, texts, strict=True)}
        answer = self._infer(feed)
        columns = (answer.as_numpy(name) for name in ensemble.ANSWER["question_answering"])
        found = [
            Span(words.decode(), float(score), int(first), int(last))
            for words, score, (first, last) in zip(*columns, strict=True)
        ]
        return found[0]._replace(others=tuple(found[1:]))

    def _infer(self, feed: dict[str, np.ndarray]) -> Any:
        return self._connection().infer(self.model, tensors(feed))
