"""Texts to tokens inside the server, by the tokenizer of the training and with its settings.

The library behind transformers' tokenizers is enough for it, so that the server's process starts without transformers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from optkit.serving import ensemble
from optkit.serving.backend.batching import Refusal
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
        self.whole = Tokenizer.from_file(str(folder / ensemble.TOKENIZER))
        self.whole.no_truncation()
        self.whole.no_padding()
        self.cutting = Tokenizer.from_file(str(folder / ensemble.TOKENIZER))
        self.cutting.no_padding()
        self.cutting.enable_truncation(
            self.settings.max_length,
            stride=self.settings.stride,
            strategy=self._strategy(),
            direction=self.settings.truncation_side,
        )

    def features(self, texts: Sequence[tuple[str, ...]]) -> list[Encoding]:
        """One feature per text, or pair of texts; what is too long is cut."""
        return self.cutting.encode_batch([one if len(one) > 1 else one[0] for one in texts])

    def windows(self, *texts: str) -> list[Encoding] | Refusal:
        """One feature per window of the last text, the passage; a text before it, the question, is whole in each."""
        *asked, passage = texts
        whole = [text.strip() for text in asked]
        for name, text in zip(self.settings.fields, whole, strict=False):
            special = self.whole.num_special_tokens_to_add(is_pair=True)
            room = self.settings.max_length - special - self.settings.stride - 1
            tokens = len(self.whole.encode(text, add_special_tokens=False).ids)
            if tokens > room:
                return Refusal(f"{name}: found {tokens} tokens, expected at most {room}. Shorten it", fault_of_request=True)
        (first,) = self.features([(*whole, passage)])
        found, name = [first, *first.overflowing], self.settings.fields[-1]
        if self.settings.max_windows and len(found) > self.settings.max_windows:
            most = f"expected at most {self.settings.max_windows}. Shorten the passage"
            return Refusal(f"{name}: found {len(found)} windows, {most}", fault_of_request=True)
        if not any(len(whole) in window.sequence_ids for window in found):
            return Refusal(f"{name}: found no words, expected the passage with the answer", fault_of_request=True)
        return found

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
    texts = list(zip(*columns, strict=True))
    if not encoder.form.has_windows:
        return _tensors(encoder.features(texts), encoder.settings, inputs)
    windows = encoder.windows(*texts[0])
    return windows if isinstance(windows, Refusal) else _tensors(windows, encoder.settings, inputs)


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
