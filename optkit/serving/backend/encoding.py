"""Texts to tokens inside the server, by the tokenizer of the training and with its settings.

The library behind transformers' tokenizers is enough for it, so that the server's process starts without transformers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from optkit.serving import ensemble
from optkit.serving.backend.batching import Refusal
from optkit.serving.backend.shortening import LONGEST, QUICK, Shortener, TooLongError
from optkit.tasks import registry
from optkit.tasks.served import NOWHERE, OFFSETS, TextSettings

_COLUMNS = {"input_ids": "ids", "token_type_ids": "type_ids", "attention_mask": "attention_mask"}
_MULTIPLE_OF = 8
"""Features are padded up to this multiple, as they are where a task is scored."""


class Encoder:
    """A tokenizer with the task's settings.

    Args:
        folder: has `tokenizer.json` and `text.json`.
    """

    def __init__(self, folder: Path) -> None:
        self.settings = TextSettings.read(folder)
        self.form = registry.form(self.settings.head)
        self.whole = self._tokenizer(folder)
        self.whole.no_truncation()
        self.shortener = Shortener(self.whole)
        self.cutting = self._tokenizer(folder)
        self.cutting.enable_truncation(
            self.settings.max_length,
            stride=self.settings.stride,
            strategy=self._strategy(),
            direction=self.settings.truncation_side,
        )

    def _tokenizer(self, folder: Path) -> Tokenizer:
        """Return the folder's tokenizer; how it reads special tokens is no part of its file."""
        found = Tokenizer.from_file(str(folder / ensemble.TOKENIZER))
        found.no_padding()
        found.encode_special_tokens = self.settings.split_special_tokens
        return found

    def features(self, texts: Sequence[tuple[str, ...]]) -> list[Encoding]:
        """One feature per text, or pair of texts; what is too long is cut.

        Raises:
            TooLongError: a text is too long even for that.
        """
        self.shortener.begin()
        return self._truncated([self._shortened(one) for one in texts])

    def _truncated(self, texts: Sequence[tuple[str, ...]]) -> list[Encoding]:
        return self.cutting.encode_batch([one if len(one) > 1 else one[0] for one in texts])

    def windows(self, *texts: str) -> list[Encoding] | Refusal:
        """One feature per window of the last text, such as a passage; a text before it, the question, is whole in each.

        Raises:
            TooLongError: a text is too long to be looked at.
        """
        self.shortener.begin()
        *asked, passage = texts
        if not passage.strip():
            return self._no_words()
        whole = [text.strip() for text in asked]
        for name, text in zip(self.settings.fields, whole, strict=False):
            special = self.whole.num_special_tokens_to_add(is_pair=True)
            room = self.settings.max_length - special - self.settings.stride - 1
            found = self.shortener.beginning(text, room + 1)
            if found.tokens > room:
                tokens = f"{found.tokens}" if found.whole else f"more than {room}"
                return Refusal(f"{name}: found {tokens} tokens, expected at most {room}. Shorten it", fault_of_request=True)
        most, name = self.settings.max_windows, self.settings.fields[-1]
        enough = most * self.settings.max_length + 1  # tokens that are too many
        if most and len(passage) > QUICK * enough:
            passage = self.shortener.beginning(passage, enough).text
        (first,) = self._truncated([(*whole, passage)])
        windows = [first, *first.overflowing]
        if most and len(windows) > most:
            more = f"found more than the {most} windows that are expected at most. Shorten it"
            return Refusal(f"{name}: {more}", fault_of_request=True)
        if not any(len(whole) in window.sequence_ids for window in windows):
            return self._no_words()
        return windows

    def _no_words(self) -> Refusal:
        return Refusal(f"{self.settings.fields[-1]}: found no words, expected some", fault_of_request=True)

    def _shortened(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        """Return what has the same feature as one text or two, and is not much longer."""
        room = self.settings.max_length - self.whole.num_special_tokens_to_add(is_pair=len(texts) > 1)
        if sum(map(len, texts)) <= QUICK * room:
            return texts
        if self.settings.truncation_side == "left":
            if sum(map(len, texts)) > LONGEST:
                raise TooLongError
            return texts
        if len(texts) == 1:
            return (self.shortener.beginning(texts[0], room + 1).text,)
        first, second = texts
        return self.shortener.pair(first, second, room)

    def _strategy(self) -> str:
        """Return the tokenizer's truncation strategy: which text is cut."""
        if not self.form.has_windows:
            return "longest_first"
        return "only_second" if len(self.settings.fields) > 1 else "only_first"


def encoded(encoder: Encoder, request: Mapping[str, np.ndarray], inputs: Sequence[str]) -> dict[str, np.ndarray] | Refusal:
    """The tensors of one request.

    Args:
        encoder: does it.
        request: bytes [batch, 1] of each field, or [1] where one example may have several windows.
        inputs: names of the tensors to give.

    Returns:
        int64 [batch or windows, sequence], and of `OFFSETS` what was named; or why there are none.
    """
    try:
        columns = [[bytes(one).decode("utf-8") for one in request[name].reshape(-1)] for name in encoder.settings.fields]
    except UnicodeDecodeError as error:
        return Refusal(f"text: found bytes that are no UTF-8 ({error}), expected UTF-8", fault_of_request=True)
    try:
        texts = [encoder.form.read(one, encoder.settings) for one in zip(*columns, strict=True)]
    except ValueError as error:
        return Refusal(str(error), fault_of_request=True)
    try:
        features = encoder.windows(*texts[0]) if encoder.form.has_windows else encoder.features(texts)
    except TooLongError:
        return Refusal(
            f"text: found one whose first {LONGEST} characters do not fill the model, or several such. Shorten it",
            fault_of_request=True,
        )
    return features if isinstance(features, Refusal) else _tensors(features, encoder.settings, inputs)


def _tensors(features: Sequence[Encoding], settings: TextSettings, inputs: Sequence[str]) -> dict[str, np.ndarray]:
    longest = max(len(feature.ids) for feature in features)
    width = max(longest, min(-(-longest // _MULTIPLE_OF) * _MULTIPLE_OF, settings.max_length))
    found = {}
    for name in inputs:
        if name in OFFSETS:
            found[name] = _padded([_offsets(feature, settings)[name] for feature in features], width, NOWHERE, np.int32)
        else:
            rows = [getattr(feature, _COLUMNS[name]) for feature in features]
            found[name] = _padded(rows, width, settings.padding[name], np.int64)
    return found


def _offsets(feature: Encoding, settings: TextSettings) -> dict[str, Sequence[int]]:
    """Return each token's start and end in the last text, in characters."""
    last = len(settings.fields) - 1
    pairs = [
        offsets if sequence == last else (NOWHERE, NOWHERE)
        for sequence, offsets in zip(feature.sequence_ids, feature.offsets, strict=True)
    ]
    return dict(zip(OFFSETS, zip(*pairs, strict=True), strict=True))


def _padded(rows: Sequence[Sequence[int]], width: int, value: int, kind: type) -> np.ndarray:
    """[batch, width] with `value` on the right of each row."""
    array: np.ndarray = np.full((len(rows), width), value, dtype=kind)
    for target, row in zip(array, rows, strict=True):
        target[: len(row)] = row
    return array
