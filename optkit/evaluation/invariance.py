"""Invariance: what the server answers to an example must not depend on what else it is doing.

A few examples of all lengths are asked in several ways, and every answer is compared with that to the example sent
alone, without padding: so a mask that is not applied, rows that are mixed up, or a scale that is taken from the batch
shows, also where the engine agrees with its graph on the batches that were scored.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from optkit.evaluation.difference import difference
from optkit.serving.client import Client
from optkit.tasks.base import Feed, Task
from optkit.tasks.collate import Collator

if TYPE_CHECKING:
    from datasets import Dataset

PROBES = 12
NEIGHBOURS = 6
QUEUE_DELAY_US = 20_000
"""How long a request waits for company while batching by the server is checked."""


class Probes:
    """Examples to ask about, and the ways to ask."""

    def __init__(self, features: "Dataset", collator: Collator, max_length: int) -> None:
        """Draw the examples: of every length, the shortest and the longest included.

        Args:
            features: of the dev split.
            collator: pads batches.
            max_length: the longest input in tokens that the engine takes.
        """
        self.collator, self.max_length = collator, max_length
        order = np.argsort(features["length"][:], kind="stable")
        spread = np.linspace(0, len(order) - 1, min(PROBES, len(order))).round().astype(int)
        self.indices = order[spread].tolist()
        """Indices of the probes among the features."""
        inputs = features.select_columns(list(collator.names))
        self._probes = [inputs[index] for index in self.indices]
        self._long = [inputs[index] for index in order[::-1][:NEIGHBOURS].tolist()]

    def alone(self) -> list[Feed]:
        """Each probe in a request of its own, without padding, int64 [1, length]."""
        return [self.collator.feed(_columns([probe]), _length(probe)) for probe in self._probes]

    def ask(self, client: Client) -> dict[str, list[np.ndarray]]:
        """The probes' logits, one array each, by the way they were asked: `alone`, `padding`, `position`, `neighbours`."""
        alone = self.alone()
        padded = [self.collator.feed(_columns([probe]), self.max_length) for probe in self._probes]
        return {
            "alone": self._rows([client.infer(feed) for feed in alone]),
            "padding": self._rows([client.infer(feed) for feed in padded]),
            "position": self._in_batch(client, self._probes[::-1])[::-1],
            "neighbours": self._among(client, self._long),
        }

    def ask_together(self, client: Client) -> list[np.ndarray]:
        """The probes' logits when all are sent at once, so that the server makes the batches."""
        return self._rows(client.infer_many(self.alone(), concurrency=len(self._probes)))

    def _among(self, client: Client, others: Sequence[Any]) -> list[np.ndarray]:
        """Half of the probes at a time after other examples."""
        half = -(-len(self._probes) // 2)
        parts = [self._probes[:half], self._probes[half:]]
        answers = [self._in_batch(client, [*others, *part])[len(others) :] for part in parts if part]
        return [row for part in answers for row in part]

    def _in_batch(self, client: Client, batch: Sequence[Any]) -> list[np.ndarray]:
        answer = client.infer(self.collator.feed(_columns(batch)))
        return [self.collator.trimmed(row, _length(one)) for row, one in zip(answer, batch, strict=True)]

    def _rows(self, answers: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [
            self.collator.trimmed(answer[0], _length(probe)) for answer, probe in zip(answers, self._probes, strict=True)
        ]


def judged(task: Task, answers: dict[str, list[np.ndarray]], scale: float) -> dict[str, dict[str, float]]:
    """How far the answers of each way to ask are from those of `alone`, with the predictions that flip.

    Args:
        task: whose logits they are.
        answers: the probes' logits by the way they were asked.
        scale: the signal that relative differences are over.
    """
    alone = answers["alone"]
    return {
        way: {**difference(rows, alone, scale).as_dict(), "flips": _flips(task, rows, alone)}
        for way, rows in answers.items()
        if way != "alone"
    }


def _flips(task: Task, rows: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> int:
    """Features of which a decision differs."""
    pairs, decisions = zip(rows, others, strict=True), task.decider(task.thresholds)
    return sum(bool(np.any(decisions(row[None], None) != decisions(other[None], None))) for row, other in pairs)


def _columns(batch: Sequence[Any]) -> dict[str, list[list[int]]]:
    return {name: [one[name] for one in batch] for name in batch[0]}


def _length(probe: Any) -> int:
    return len(probe["input_ids"])
