"""How a task is served in words: what a client sends, what the server makes of it, and what the client is given.

Two steps stand around the tensor model: the first makes tokens of text by `TextSettings`, the second an answer of logits
by the task's `ServedForm`. Both run in the server's processes, and need NumPy and the standard library only.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

from optkit.core.errors import InputError

SETTINGS = "text.json"
OFFSETS = ("context_starts", "context_ends")
"""Where each token stands in the last text, in characters, int32 [features, sequence]; `NOWHERE` outside of it."""
NOWHERE = -1

Tensors = dict[str, tuple[str, tuple[int, ...]]]
"""{name: (Triton's type, shape)}"""


class Answer(Protocol):
    """What a client is given for one example; `str` makes of it what the task calls its prediction."""

    def shown(self) -> str:
        """All of it in lines, the best first."""
        ...


class ServedForm(ABC):
    """The served side of one kind of task."""

    has_windows: ClassVar[bool] = False
    """Whether a request is one example, whose last text may become several features. Else it is a batch of examples."""
    beside: ClassVar[tuple[str, ...]] = ()
    """What `answer` needs beside the logits: some of `OFFSETS`, and of the request's texts."""

    @abstractmethod
    def logits_shape(self, settings: TextSettings) -> tuple[int, ...]:
        """Shape of the logits without the batch; -1 for tokens."""

    @abstractmethod
    def outputs(self, settings: TextSettings) -> Tensors:
        """What the server gives, without the batch where requests are batches; -1 for what varies."""

    @abstractmethod
    def answer(
        self, logits: NDArray[Any], beside: Mapping[str, NDArray[Any]], settings: TextSettings
    ) -> dict[str, NDArray[Any]]:
        """The outputs, in the server.

        Args:
            logits: finite, [batch, …], or [windows, …] of one example.
            beside: texts as bytes [batch, 1], or [1] of one example; offsets [batch or windows, sequence].
            settings: of the task.
        """

    @abstractmethod
    def decode(self, outputs: Mapping[str, NDArray[Any]], labels: Sequence[str]) -> Sequence[Answer]:
        """An answer for each example, at the client.

        Args:
            outputs: as the server gave them.
            labels: class names in the order of the logits.
        """


@dataclass(frozen=True)
class TextSettings:
    """How a task makes tokens of text and an answer of logits."""

    head: str
    """Head of the task, which says whose `ServedForm` reads the logits."""
    fields: tuple[str, ...]
    """Names of a request's texts, such as `text`, or `question` and `context`."""
    padding: Mapping[str, int]
    """The model's inputs in their order, each with what fills it up."""
    max_length: int
    """Longest feature in tokens: longer texts are cut, or become several windows."""
    truncation_side: str = "right"
    labels: tuple[str, ...] = ()
    """Class names in the order of the logits."""
    stride: int = 0
    """Tokens that two neighbouring windows share."""
    longest_answer: int = 0
    """Tokens an answer may have."""
    n_best: int = 1
    """Answers to a question."""
    max_windows: int = 0
    """Windows of one text that the engine takes at once."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """What else the task's form needs, as JSON takes it."""

    def write(self, folder: Path) -> None:
        """Keep the settings in a folder."""
        content = {name: value for name, value in asdict(self).items() if name != "more" or value}
        (folder / SETTINGS).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> TextSettings:
        """What `write` kept.

        Raises:
            InputError: it is something else.
        """
        path = folder / SETTINGS
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in content.items()}
            return cls(**fields)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            fix = "score the recipe again: optkit run"
            raise InputError(f"{path}: not text settings written by optkit ({error}); {fix}") from error
