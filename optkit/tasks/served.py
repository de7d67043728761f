"""Text serving of a task: the request's texts, the server's outputs, and the answers that the client returns.

Two steps surround the tensor model: the first tokenises text by `TextSettings`, the second converts logits to outputs by
the task's `ServedForm`. Both run in the server's processes and need only NumPy and the standard library.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

from optkit.core.json_door import read_json

SETTINGS = "text.json"
OFFSETS = ("context_starts", "context_ends")
"""Names of the tensors with each token's start and end in the last text, in characters, int32 [features, sequence];
`NOWHERE` for tokens outside of it."""
NOWHERE = -1
_WHERE_SET = ("split_special_tokens", "more", "logits")
"""Settings that are written only where they say something."""

Tensors = dict[str, tuple[str, tuple[int, ...]]]
"""Output tensors, `{name: (Triton's type, shape)}`."""


class Answer(Protocol):
    """Answer to one example; `str` of it is the task's prediction as text."""

    def shown(self) -> str:
        """Return all of the answer as lines of text, the best candidate first."""
        ...


class ServedForm(ABC):
    """Base class of the served form of tasks with one head: outputs in the server, answers in the client."""

    has_windows: ClassVar[bool] = False
    """Whether a request is a single example, whose last text may be split into several features (windows); otherwise it is a
    batch of examples."""
    defaults: ClassVar[Mapping[str, str]] = {}
    """What a client sends for fields of a request that it is not told."""
    beside: ClassVar[tuple[str, ...]] = ()
    """Names of further inputs of `answer` besides the logits: some of `OFFSETS` and of the request's texts."""

    @abstractmethod
    def logits_shape(self, settings: TextSettings) -> tuple[int, ...]:
        """Return the shape of the logits without the batch axis; -1 for the token axis."""

    @abstractmethod
    def outputs(self, settings: TextSettings) -> Tensors:
        """Return the server's output tensors, without the batch axis if requests are batches; -1 for dynamic dimensions."""

    @abstractmethod
    def answer(
        self, logits: NDArray[Any], beside: Mapping[str, NDArray[Any]], settings: TextSettings
    ) -> dict[str, NDArray[Any]]:
        """Convert logits to the output tensors, in the server.

        Args:
            logits: finite logits [batch, …], or [windows, …] of a single example.
            beside: the inputs named by `beside`: texts as bytes [batch, 1], or [1] for a single example; offsets
                [batch or windows, sequence].
            settings: text settings of the task.

        Returns:
            Output tensors by name, as `outputs` declares them.
        """

    @abstractmethod
    def decode(self, outputs: Mapping[str, NDArray[Any]], labels: Sequence[str]) -> Sequence[Answer]:
        """Convert output tensors to one answer per example, in the client.

        Args:
            outputs: output tensors of the server by name.
            labels: class names in the order of the logits.
        """

    def read(self, texts: tuple[str, ...], settings: TextSettings) -> tuple[str, ...]:
        """Return the texts to tokenise, from the fields of one example in a request, in the server.

        Raises:
            ValueError: a field has a value that there is not; the message is for who asked.
        """
        return texts

    def shown(self, texts: Sequence[Sequence[str]], answers: Sequence[Answer]) -> str:
        """Return the answers to several examples as lines of text.

        Args:
            texts: texts of each example.
            answers: answer to each.
        """
        return "\n\n".join(answer.shown() for answer in answers)

    def differing(self, found: Sequence[str], expected: Sequence[str]) -> list[int]:
        """Return the places at which answers, as `str` gives them, are others than expected."""
        pairs = zip(found, expected, strict=True)
        return [place for place, (ours, theirs) in enumerate(pairs) if ours != theirs]


@dataclass(frozen=True)
class TextSettings:
    """Settings for tokenising text and converting logits to answers."""

    head: str
    """Head of the task, which selects the `ServedForm`."""
    fields: tuple[str, ...]
    """Names of a request's texts, such as `text`, or `question` and `context`."""
    padding: Mapping[str, int]
    """Padding value by model input, in the model's order."""
    max_length: int
    """Longest feature in tokens; longer texts are truncated or split into windows."""
    truncation_side: str = "right"
    split_special_tokens: bool = False
    """Whether a special token that stands in a text, such as `[SEP]`, is read as the letters that it is written with."""
    labels: tuple[str, ...] = ()
    """Class names in the order of the logits."""
    stride: int = 0
    """Overlap of neighbouring windows, in tokens."""
    longest_answer: int = 0
    """Longest answer, in tokens."""
    n_best: int = 1
    """Number of answers per question."""
    max_windows: int = 0
    """Largest number of windows of one text, limited by the engine's batch."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further settings of the task's served form, in JSON types."""
    logits: tuple[int, ...] = ()
    """Shape of the logits without the batch axis, where it depends on the model."""

    def write(self, folder: Path) -> None:
        """Write the settings to `text.json` in a folder."""
        content = {name: value for name, value in asdict(self).items() if name not in _WHERE_SET or value}
        (folder / SETTINGS).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> TextSettings:
        """Read the settings that `write` stored in a folder.

        Raises:
            InputError: the file is missing or holds something else.
        """
        content = read_json(folder / SETTINGS, cls, "score the recipe again: optkit run")
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in content.items()}
        return cls(**fields)
