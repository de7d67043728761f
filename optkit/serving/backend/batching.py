"""Requests to one batch and the answers back: NumPy alone, so that it can be read and tested without a server."""

import math
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from optkit.serving.backend.lengths import runs

Feed = Mapping[str, np.ndarray]
Infer = Callable[[Feed], np.ndarray]


@dataclass(frozen=True)
class Limits:
    """What a request may ask for."""

    max_sequence: int
    pad_id: int = 0
    vocab_size: int | None = None
    token_types: int = 2


@dataclass(frozen=True)
class Refusal:
    """The answer to a request that cannot be served."""

    reason: str
    fault_of_request: bool


def answer(
    feeds: Sequence[Feed], infer: Infer, limits: Limits, per_token: bool = False, call: float = math.inf
) -> list[np.ndarray | Refusal]:
    """Answer several requests with the runs of the engine that cost least; a bad one is refused alone.

    Args:
        feeds: one feed per request, int64 [batch, sequence], each with its own batch and sequence.
        infer: the engine: a feed to logits [batch, …].
        limits: what a request may ask for.
        per_token: whether the logits have an entry for each token.
        call: what a run of the engine costs by itself, in tokens: requests of so different lengths that padding costs more
            do not share one.

    Returns:
        Float32 logits of the request's own batch and sequence, or why there are none.
    """
    answers: list[np.ndarray | Refusal | None] = [_refuse(feed, limits) for feed in feeds]
    for group in _runs(feeds, [index for index, refusal in enumerate(answers) if refusal is None], call):
        results = _run([feeds[index] for index in group], infer, limits.pad_id, per_token)
        for index, result in zip(group, results, strict=True):
            answers[index] = result
    return [result for result in answers if result is not None]


def _runs(feeds: Sequence[Feed], indices: Sequence[int], call: float) -> Iterator[list[int]]:
    """Yield the indices of the requests that share a run of the engine."""
    groups: dict[int | None, list[int]] = defaultdict(list)
    for index in indices:
        # Without a mask a padded token would count: then only requests of one length share a run.
        groups[None if "attention_mask" in feeds[index] else feeds[index]["input_ids"].shape[1]].append(index)
    for group in groups.values():
        shapes = [feeds[index]["input_ids"].shape for index in group]
        for run in runs([(rows, tokens) for rows, tokens in shapes], call):
            yield [group[place] for place in run]


def _refuse(feed: Feed, limits: Limits) -> Refusal | None:
    """Why a request cannot be served, if so."""
    reason = _wrong_shape(feed, limits) or _wrong_values(feed, limits)
    return Refusal(reason, fault_of_request=True) if reason else None


def _wrong_shape(feed: Feed, limits: Limits) -> str | None:
    expected = feed["input_ids"].shape
    for name, array in feed.items():
        if array.dtype != np.int64 or array.ndim != 2 or array.shape != expected:
            return (
                f"{name}: found {array.dtype} {list(array.shape)}, expected int64 [batch, sequence] like input_ids, "
                f"{list(expected)}"
            )
    if not 1 <= expected[1] <= limits.max_sequence:
        return f"input_ids: found {expected[1]} tokens, expected 1 to {limits.max_sequence}. Truncate the text"
    return None


def _wrong_values(feed: Feed, limits: Limits) -> str | None:
    highest_of = {
        "input_ids": limits.vocab_size - 1 if limits.vocab_size else None,
        "token_type_ids": limits.token_types - 1,
    }
    for name, array in feed.items():
        highest = highest_of.get(name, 1)
        low, high = int(array.min()), int(array.max())
        if low < 0 or (highest is not None and high > highest):
            upper = "or more" if highest is None else f"to {highest}"
            return f"{name}: found values from {low} to {high}, expected 0 {upper}"
    return None


def _run(feeds: list[Feed], infer: Infer, pad_id: int, per_token: bool) -> list[np.ndarray | Refusal]:
    """One run for all; if it fails, one run for each, so that only the culprit gets the error."""
    try:
        return list(split(infer(merge(feeds, pad_id)), feeds, per_token))
    except Exception as error:
        if len(feeds) > 1:
            return [_run([feed], infer, pad_id, per_token)[0] for feed in feeds]
        traceback.print_exc()  # into the server's log
        return [Refusal(f"{type(error).__name__}: {error}", fault_of_request=False)]


def plain(inputs: Sequence[str], batch: int, tokens: int) -> Feed:
    """A valid request for any model: the first word of the vocabulary everywhere, and nothing masked.

    Triton's own warm-up has zeros for the mask as well, or random bytes for ids.
    """
    return {name: np.full((batch, tokens), int(name == "attention_mask"), np.int64) for name in inputs}


def merge(feeds: Sequence[Feed], pad_id: int = 0) -> Feed:
    """Stack feeds into one batch, padded to the longest; a single feed is handed on without a copy."""
    if len(feeds) == 1:
        return feeds[0]
    shapes = [feed["input_ids"].shape for feed in feeds]
    merged = {}
    for name in feeds[0]:
        shape = sum(rows for rows, _ in shapes), max(length for _, length in shapes)
        merged[name] = np.full(shape, pad_id if name == "input_ids" else 0, np.int64)
        row = 0
        for feed, (rows, length) in zip(feeds, shapes, strict=True):
            merged[name][row : row + rows, :length] = feed[name]
            row += rows
    return merged


def split(logits: np.ndarray, feeds: Sequence[Feed], per_token: bool) -> list[np.ndarray]:
    """Cut the logits of a merged batch into each request's own, without the positions that padding added.

    Args:
        logits: [batch, …].
        feeds: the requests.
        per_token: whether the logits have an entry for each token.

    Raises:
        ValueError: the engine answered with another number of rows.
    """
    shapes = [feed["input_ids"].shape for feed in feeds]
    if logits.shape[0] != sum(rows for rows, _ in shapes):
        raise ValueError(f"engine answered {list(logits.shape)} to {sum(rows for rows, _ in shapes)} rows")
    parts, row = [], 0
    for rows, length in shapes:
        part = logits[row : row + rows]
        parts.append(np.ascontiguousarray(part[:, :length] if per_token else part, np.float32))
        row += rows
    return parts
