"""Entities in a text, found from the logits of its tokens, by NumPy and the standard library alone.

A *piece* is a token of the tokenizer. A *word* is a run of letters, digits and their marks, or any other character by
itself; scripts that put no blanks between words (Chinese, Japanese, Thai, Lao, Burmese, Khmer) count character by character.
A *unit* is what gets a tag: the first piece of each word, which stands for all of it, or every piece.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from optkit.tasks.data.iob import entities, type_of
from optkit.tasks.served import NOWHERE, OFFSETS, ServedForm, Tensors, TextSettings
from optkit.tasks.spans import Words

FIRST, ALL = "first", "all"
"""Which pieces get a tag."""
_ALONE = ((0x0E01, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3005, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
          (0xF900, 0xFAFF), (0x20000, 0x3FFFF))  # fmt: skip
"""Code points of scripts without blanks between words."""
Offsets = tuple[NDArray[np.int32], NDArray[np.int32]]
"""Where each piece of a window starts and ends in the text [sequence], in characters; `NOWHERE` outside of it."""
Units = NDArray[np.int64]
"""Where each unit starts and ends in the text, [units, 2], in order."""


class Entity(NamedTuple):
    """A part of a text that means something of a type."""

    type: str
    text: str
    start: int
    end: int
    """`start` and `end`: offsets of its first character in the text, and of the one after its last."""
    score: float = 1.0
    """Mean probability of the tags of its words."""


def stripped(windows: Sequence[Offsets], text: str) -> list[Offsets]:
    """Return the offsets of all windows without the blanks that some tokenizers count to words."""
    words = Words(text)
    return [words.of(starts, ends) for starts, ends in windows]


def units_of(windows: Sequence[Offsets], text: str, pieces: str) -> Units:
    """Return the units of a text.

    Args:
        windows: of the text, together all of it, as `stripped` gives them.
        text: itself.
        pieces: which pieces are units, `FIRST` or `ALL`.
    """
    starts, ends = (np.concatenate(side) for side in zip(*windows, strict=True))
    order = np.lexsort((-ends, starts))  # pieces of one character share its start: the longest goes first
    order = order[starts[order] != NOWHERE]
    starts, kept = np.unique(starts[order], return_index=True)
    ends = ends[order][kept]
    if pieces == FIRST:
        numbers, closes = _words(text)
        first = np.diff(numbers[starts], prepend=-1) != 0
        starts, ends = starts[first], np.maximum(ends, closes[starts])[first]
    return np.stack([starts, ends], axis=1).astype(np.int64)


def places(units: Units, starts: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which units a window holds, and the place of each in it.

    Args:
        units: of the text.
        starts: where each piece of the window starts, `stripped`.
    """
    _, held, found = np.intersect1d(units[:, 0], starts, return_indices=True)
    return held, found


def joined(logits: Sequence[NDArray[np.floating]], windows: Sequence[Offsets], units: Units) -> NDArray[np.float64]:
    """Return the logits of each unit, [units, classes], from the window in which it has most context on both sides.

    Args:
        logits: [sequence, classes] of each window, padded or not.
        windows: offsets of each, `stripped`.
        units: of the text.
    """
    found = np.zeros((len(units), logits[0].shape[-1]))
    best = np.full(len(units), -1)
    for own, (starts, _) in zip(logits, windows, strict=True):
        real = np.flatnonzero(starts != NOWHERE)
        held, at = places(units, starts)
        if len(held):
            context = np.minimum(at - real[0], real[-1] - at)
            better = context > best[held]
            best[held[better]], found[held[better]] = context[better], own[at[better]]
    return found


def read(logits: NDArray[np.float64], units: Units, text: str, tags: Sequence[str]) -> list[Entity]:
    """Return the entities that the likeliest tag of each unit gives.

    Args:
        logits: [units, classes].
        units: of the text.
        text: itself.
        tags: of IOB2, in the order of the logits.
    """
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    chosen, surest = logits.argmax(axis=-1), shares.max(axis=-1)
    found = []
    for kind, first, last in entities([tags[one] for one in chosen]):
        start, end = int(units[first, 0]), int(units[last - 1, 1])
        found.append(Entity(kind, text[start:end], start, end, float(surest[first:last].mean())))
    return found


def types_of(tags: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """Return a model's own name of each type, from its names of the tags, in the same order."""
    return {type_of(tag): type_of(label) for tag, label in zip(tags, labels, strict=True) if tag.startswith("B-")}


def _words(text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the number of the word that each character belongs to, and where that word ends, [characters] each."""
    characters = np.array(list(text), dtype="<U1")
    codes = characters.view(np.uint32)
    blank, letter = np.char.isspace(characters), np.char.isalnum(characters)
    mark = np.zeros(len(text), dtype=bool)
    for place in np.flatnonzero(~letter & ~blank & (codes > 0x7F)):
        mark[place] = unicodedata.category(text[place]).startswith("M")
    alone = np.logical_or.reduce([(codes >= first) & (codes <= last) for first, last in _ALONE])
    goes_on = np.zeros(len(text), dtype=bool)  # in the word of the character before it
    goes_on[1:] = (mark[1:] & ~blank[:-1]) | (letter[1:] & (letter | mark)[:-1] & ~alone[1:] & ~alone[:-1])
    starts = np.flatnonzero(~goes_on)
    numbers = np.cumsum(~goes_on) - 1
    return numbers, np.append(starts[1:], len(text))[numbers]


class Tagging(NamedTuple):
    """The prediction for a text."""

    tags: tuple[int, ...]
    """Class index of each of the row's tokens: that of its first unit."""
    found: tuple[Entity, ...]
    """The entities, as they are served."""


class Entities(NamedTuple):
    """The served answer to a text."""

    found: tuple[Entity, ...]

    def __str__(self) -> str:
        return "; ".join(f"{one.text} [{one.type}]" for one in self.found) or "no entities"

    def shown(self) -> str:
        """The entities in lines, in the order of the text."""
        rows = [f"{one.type}: {one.text} (score {one.score:.2f}, characters {one.start} to {one.end})" for one in self.found]
        return "\n".join(rows) or "no entities"


class ServedEntities(ServedForm):
    """A text of any length, and the entities in it, in the order of the text."""

    has_windows = True
    beside = (*OFFSETS, "text")

    def logits_shape(self, settings: TextSettings) -> tuple[int, ...]:
        return (-1, len(settings.labels))

    def outputs(self, settings: TextSettings) -> Tensors:
        texts = dict.fromkeys(("entity", "type"), ("STRING", (-1,)))
        return {**texts, "score": ("FP32", (-1,)), "span": ("INT32", (-1, 2))}

    def answer(self, logits: np.ndarray, beside: Mapping[str, np.ndarray], settings: TextSettings) -> dict[str, np.ndarray]:
        """The entities of all windows, as the task predicts them.

        Returns:
            `entity` [entities] and `type` [entities] in UTF-8, `score` [entities]: the mean probability of its words' tags;
            `span` [entities, 2]: its first character and the one after its last.
        """
        text = beside["text"][0].decode("utf-8")
        windows = stripped(list(zip(*(beside[name] for name in OFFSETS), strict=True)), text)
        units = units_of(windows, text, settings.more["pieces"])
        tags = settings.more["tags"]
        found = read(joined(list(logits), windows, units), units, text, tags)
        types = types_of(tags, settings.labels)
        return {
            "entity": np.array([one.text.encode() for one in found], dtype=object),
            "type": np.array([types[one.type].encode() for one in found], dtype=object),
            "score": np.array([one.score for one in found], np.float32),
            "span": np.array([(one.start, one.end) for one in found], np.int32).reshape(-1, 2),
        }

    def decode(self, outputs: Mapping[str, np.ndarray], labels: Sequence[str]) -> list[Entities]:
        rows = zip(*(outputs[name] for name in ("type", "entity", "span", "score")), strict=True)
        found = [
            Entity(kind.decode(), text.decode(), int(start), int(end), float(score))
            for kind, text, (start, end), score in rows
        ]
        return [Entities(tuple(found))]
