"""Answers of question answering in the server and in the client: the best spans of a passage, or none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from optkit.tasks import spans
from optkit.tasks.served import OFFSETS, ServedForm, Tensors, TextSettings

NO_ANSWER = "(no answer)"
"""No answer, as text for people."""


class Span(NamedTuple):
    """One of the answers found to a question; "" for none."""

    answer: str
    score: float
    """The sum of the answer's start and end logit."""
    start: int
    end: int
    """`start` and `end`: offsets of its first character in the passage, and of the one after its last."""
    others: tuple[Span, ...] = ()
    """The next best answers, where this is the served one."""

    def __str__(self) -> str:
        return self.answer or NO_ANSWER

    def shown(self) -> str:
        """All answers in lines, the best first."""
        return "\n".join(
            f"{one.answer} (score {one.score:.2f}, characters {one.start} to {one.end})"
            if one.answer
            else f"{NO_ANSWER} (score {one.score:.2f})"
            for one in (self, *self.others)
        )


class ServedSpans(ServedForm):
    """A question on a passage, and its best answers, the best first."""

    has_windows = True
    beside = (*OFFSETS, "context")

    def logits_shape(self, settings: TextSettings) -> tuple[int, ...]:
        return (-1, 2)

    def outputs(self, settings: TextSettings) -> Tensors:
        return {"answer": ("STRING", (-1,)), "score": ("FP32", (-1,)), "span": ("INT32", (-1, 2))}

    def answer(self, logits: np.ndarray, beside: Mapping[str, np.ndarray], settings: TextSettings) -> dict[str, np.ndarray]:
        """The best spans of all windows, the first as the task predicts it.

        Returns:
            `answer` [answers] in UTF-8, `score` [answers]: the sum of its start and end logit; `span` [answers, 2]: its
            first character and the one after its last. Where a question may have no answer, "" with the score of none less
            the threshold is among them.
        """
        context = beside["context"][0].decode("utf-8")
        windows = list(zip(logits, *(beside[name] for name in OFFSETS), strict=True))
        found = spans.of_passage(windows, context, settings.longest_answer, settings.n_best)
        if thresholds := settings.more.get("thresholds"):
            found = spans.with_none(found, spans.none_score(windows) - thresholds[0])
        return {
            "answer": np.array([context[first:last].encode() for _, first, last in found], dtype=object),
            "score": np.array([value for value, _, _ in found], np.float32),
            "span": np.array([span for _, *span in found], np.int32).reshape(-1, 2),
        }

    def decode(self, outputs: Mapping[str, np.ndarray], labels: Sequence[str]) -> list[Span]:
        rows = zip(*(outputs[name] for name in ("answer", "score", "span")), strict=True)
        found = [Span(words.decode(), float(score), int(first), int(last)) for words, score, (first, last) in rows]
        if not found:  # a passage of characters that no token stands for
            return [Span("", -math.inf, 0, 0)]
        return [found[0]._replace(others=tuple(found[1:]))]
