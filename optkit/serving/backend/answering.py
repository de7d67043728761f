"""Logits to answers inside the server, as the tasks read them: NumPy alone."""

from collections.abc import Callable, Mapping

import numpy as np

from optkit.serving.backend.batching import Refusal
from optkit.serving.config import OUTPUT
from optkit.serving.ensemble import OFFSETS, TextSettings
from optkit.tasks import spans

Result = dict[str, np.ndarray] | Refusal


def classify(request: Mapping[str, np.ndarray], settings: TextSettings) -> Result:
    """The class of the highest logit, as the task predicts it, and the softmax.

    Args:
        request: `logits` [batch, classes].
        settings: have the class names.

    Returns:
        `label` [batch, 1] in UTF-8, `probability` [batch, 1] and `probabilities` [batch, classes].
    """
    logits = request[OUTPUT].astype(np.float64)
    if not np.isfinite(logits).all():
        return _not_finite()
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    chosen = logits.argmax(axis=-1)[:, None]
    names = np.array([label.encode() for label in settings.labels], dtype=object)
    return {
        "label": names[chosen],
        "probability": np.take_along_axis(shares, chosen, axis=-1).astype(np.float32),
        "probabilities": shares.astype(np.float32),
    }


def answer(request: Mapping[str, np.ndarray], settings: TextSettings) -> Result:
    """The best spans of all windows of one passage, the first as the task predicts it.

    Args:
        request: `logits` [windows, sequence, 2], where its tokens start and end [windows, sequence], `context` [1].
        settings: how long an answer may be, and how many to give.

    Returns:
        `answer` [answers] in UTF-8, `score` [answers]: the sum of its start and end logit; `span` [answers, 2]: its first
        character and the one after its last.
    """
    if not np.isfinite(request[OUTPUT]).all():
        return _not_finite()
    context = request["context"][0].decode("utf-8")
    windows = zip(request[OUTPUT], *(request[name] for name in OFFSETS), strict=True)
    found = spans.of_passage(windows, settings.longest_answer, settings.n_best)
    return {
        "answer": np.array([context[first:last].encode() for _, first, last in found], dtype=object),
        "score": np.array([value for value, _, _ in found], np.float32),
        "span": np.array([span for _, *span in found], np.int32).reshape(-1, 2),
    }


ANSWERING: Mapping[str, Callable[[Mapping[str, np.ndarray], TextSettings], Result]] = {
    "classification": classify,
    "question_answering": answer,
}


def _not_finite() -> Refusal:
    return Refusal("logits: found NaN or infinity, expected finite numbers", fault_of_request=False)
