"""Asks a text pipeline on a Triton server: words in, the task's answer out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from optkit.core.errors import InputError, MachineError
from optkit.core.json_door import encodable, parse_json
from optkit.serving import ensemble
from optkit.serving.connection import TIMEOUT_S, Connection, tensors
from optkit.tasks import registry
from optkit.tasks.served import Answer, ServedForm

_BEFORE = {"label": "classification", "answer": "question_answering"}
"""Heads of published pipelines that do not state theirs, by their first output."""

_AGAIN = "publish it again"


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
        """Ask once, or once for each example where one may become several features.

        Args:
            texts: of each example its texts, such as its two, or question and passage.

        Raises:
            InputError: the server has no such pipeline or refuses the request; or it takes another number of texts.
            MachineError: the server is gone, does not answer in time, fails, or answers something else.
        """
        with self._deadline("configuration"):
            served = self._configuration()
            fields, defaults = [tensor["name"] for tensor in served["input"]], self.form.defaults
        texts = [(*one, *(defaults[name] for name in fields[len(one) :] if name in defaults)) for one in texts]
        for one in texts:
            if len(one) != len(fields):
                expected = f"{len(fields)}: {', '.join(fields)}"
                raise InputError(f"model {self.model!r} on {self.url}: found {len(one)} texts, expected {expected}")
        if not all(encodable(text) for one in texts for text in one):
            raise InputError(f"model {self.model!r}: found a text that is not UTF-8, expected UTF-8")
        with self._deadline("configuration"):
            form = self.form
        with self._named("request"):
            batches = [[one] for one in texts] if form.has_windows else [texts]
            return [answer for batch in batches for answer in self._answers(batch, form, served)]

    def largest_batch(self) -> int:
        """Return how many examples a request may have.

        Raises:
            InputError: the server has no such pipeline.
            MachineError: the server is gone, or does not answer in time.
        """
        with self._deadline("configuration"):
            return max(1, int(self._configuration()["max_batch_size"]))

    def _configuration(self) -> dict[str, Any]:
        """What the server says of the pipeline, asked once."""
        if self._served is None:
            self._require()
            self._served = self.config()
        return self._served

    def _require(self) -> None:
        """Name what can be asked where this model cannot."""
        if not self.ready():
            raise InputError(
                f"Triton server on {self.url}: found no model {self.model!r}; models that take text: "
                f"{self.others(ensemble.SUFFIX)}. Publish one there, or "
                "ask another one; of a server that has just started, ask again"
            )

    @property
    def form(self) -> ServedForm:
        """Served form of the task whose answers the pipeline gives."""
        served = self._configuration()
        stated = served["parameters"].get(ensemble.HEAD, {}).get("string_value")
        try:
            return registry.form(stated or _BEFORE[served["output"][0]["name"]])
        except InputError as error:
            raise InputError(f"Triton server on {self.url}, model {self.model!r}: {error}") from error

    def _answers(self, texts: Sequence[Sequence[str]], form: ServedForm, served: Mapping[str, Any]) -> Sequence[Answer]:
        """One request: a batch of examples, or a single one that may become several features."""
        columns = [[one.encode() for one in column] for column in zip(*texts, strict=True)]
        shape = (1,) if form.has_windows else (-1, 1)
        fields = (tensor["name"] for tensor in served["input"])
        feed = {name: np.array(column, object).reshape(shape) for name, column in zip(fields, columns, strict=True)}
        answer = self._wire().infer(self.model, tensors(feed))
        stated = served["parameters"].get(ensemble.LABELS, {}).get("string_value", "[]")
        labels = parse_json(stated, f"model {self.model!r} on {self.url}, its labels", list[str], _AGAIN, MachineError)
        return form.decode({tensor["name"]: answer.as_numpy(tensor["name"]) for tensor in served["output"]}, labels)
