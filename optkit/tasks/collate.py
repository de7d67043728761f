"""Batches of features of near-equal length, so that little is padded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from optkit.core.errors import GateError, InputError
from optkit.core.progress import bar

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from optkit.tasks.base import Feed, Task

BATCH_SIZE = 32
"""Features in a batch where they are only run through a model, and nothing but speed depends on it."""

FEW_TOKENS = 4096
"""Tokens of a batch that is run slowly, or of which every tensor is kept."""

FEEDS = 8
"""Different requests of a batch size, where one is not enough and all would be too many."""

POOL_BATCHES = 50
"""Batches sorted by length together in training: enough to pad little, few enough to keep the order random."""

TOGETHER = 8
"""Features of a group beside each other in training: enough to compare, few enough for several groups in a batch."""

IGNORED = -100
"""Fills up targets that are lists; what PyTorch's cross-entropy leaves out."""


def bucketed(lengths: Iterable[int], batch_size: int, seed: int | Sequence[int] | None = None) -> list[list[int]]:
    """Batches of indices into `lengths`, every index once.

    Args:
        lengths: of every feature in tokens.
        batch_size: features in a batch; the last may be smaller.
        seed: for training: shuffles, sorts pools of `POOL_BATCHES` batches by length, and shuffles the batches.
            Give `(seed, epoch)` for a new order in every epoch. Without: by length, the longest first, so that a
            batch that does not fit into memory shows at once.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: found {batch_size}, expected 1 or more")
    sizes = np.fromiter(lengths, dtype=np.int64)
    if seed is None:
        return _cut(np.argsort(-sizes, kind="stable"), batch_size)
    random = np.random.default_rng(seed)
    pools = _cut(random.permutation(len(sizes)), POOL_BATCHES * batch_size)
    batches = [batch for pool in pools for batch in _cut(np.array(pool)[np.argsort(-sizes[pool])], batch_size)]
    return [batches[position] for position in random.permutation(len(batches))]


def grouped(groups: Sequence[int], lengths: Sequence[int], batch_size: int, seed: int | Sequence[int]) -> list[list[int]]:
    """Batches of indices, every index once, in which several of a group stand beside each other; for training.

    Groups are cut into pieces of `TOGETHER` at most and of roughly equal length, others in every epoch; these are shuffled,
    and in pools sorted by length as in `bucketed`.

    Args:
        groups: number of each feature's group.
        lengths: of every feature in tokens.
        batch_size: features in a batch; the last may be smaller.
        seed: of the order.
    """
    random, sizes = np.random.default_rng(seed), np.asarray(lengths)
    pieces = _pieces(np.asarray(groups), sizes * random.uniform(1, 2, len(sizes)))
    pools = _cut(random.permutation(len(pieces)), max(1, POOL_BATCHES * batch_size // TOGETHER))
    ordered = [place for pool in pools for place in sorted(pool, key=lambda place: -sizes[pieces[place]].max())]
    batches = _cut(np.array([index for place in ordered for index in pieces[place]]), batch_size)
    return [batches[position] for position in random.permutation(len(batches))]


def micro_batches(indices: Sequence[int], pieces: int, processes: int = 1) -> list[list[list[int]]]:
    """Split a batch among processes, and each one's share into pieces.

    Args:
        indices: of the batch's features.
        pieces: in how many to split it in all; fewer where there are fewer features.
        processes: that each take a share.

    Returns:
        Micro-batches by process: as many of each, since they wait for each other; empty for one without a feature.
    """
    shares = np.array_split(indices, processes)
    each = max(1, min(math.ceil(pieces / processes), *map(len, shares)))
    return [[part.tolist() for part in np.array_split(share, each)] for share in shares]


def _pieces(groups: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """Indices of each group by length, in equal pieces of `TOGETHER` at most."""
    order = np.lexsort((lengths, groups))
    found = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    return [piece for group in found if len(group) for piece in np.array_split(group, -(-len(group) // TOGETHER))]


class Collator:
    """Pads features to a batch: `DataLoader(features, batch_sampler=bucketed(…), collate_fn=Collator(tokenizer))`.

    It also takes the padding off the logits again.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int | None = None,
        multiple_of: int = 8,
        return_tensors: Literal["np", "pt"] = "np",
        per_token: bool = False,
    ) -> None:
        """How to pad.

        Args:
            tokenizer: says the inputs' names and the padding token.
            max_length: never pad beyond this many tokens, for a longest feature that is no multiple.
            multiple_of: pad the batch's longest feature up to this multiple, which matrix hardware is fastest at.
            return_tensors: `np` for numpy arrays, `pt` for torch tensors.
            per_token: whether the logits have an entry for each token.

        Raises:
            InputError: the tokenizer has no padding token.
        """
        if tokenizer.pad_token_id is None:
            raise InputError(
                f"tokenizer {tokenizer.name_or_path!r}: found no padding token, expected one. "
                "Fix: set pad_token in its tokenizer_config.json"
            )
        self.names: tuple[str, ...] = tuple(tokenizer.model_input_names)
        self.max_length = min(max_length or tokenizer.model_max_length, tokenizer.model_max_length)
        self.multiple_of, self.return_tensors, self.per_token = multiple_of, return_tensors, per_token
        self._padding = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}

    @classmethod
    def of(cls, task: Task, tokenizer: PreTrainedTokenizerBase) -> Collator:
        """Return the collator for the features of a task."""
        return cls(tokenizer, task.length(tokenizer), per_token=task.per_token())

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Inputs int64 [batch, sequence]; targets, `example` and every other single number int64 [batch].

        Lists that are not inputs, as the offsets of question answering, are left out.
        """
        numbers = [name for name, value in features[0].items() if isinstance(value, int | np.integer)]
        batch = dict(self.feed({name: [feature[name] for feature in features] for name in self.names}))
        batch |= {name: np.array([feature[name] for feature in features], dtype=np.int64) for name in numbers}
        if self.return_tensors == "np":
            return batch
        import torch

        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def feed(self, columns: Mapping[str, Sequence[Sequence[int]]], width: int | None = None) -> Feed:
        """The inputs alone, int64 [batch, sequence], from one list of features per input name.

        Args:
            columns: the features' tokens.
            width: the sequence to pad to, where it should be another than the multiple that suits the longest.
        """
        longest = max(len(tokens) for tokens in columns[self.names[0]])
        if width is None:
            rounded = -(-longest // self.multiple_of) * self.multiple_of
            width = max(longest, min(rounded, self.max_length))
        return {name: _padded(columns[name], width, self._padding.get(name, 0)) for name in self.names}

    def trimmed(self, logits: np.ndarray, length: int) -> np.ndarray:
        """A copy of one feature's logits without those of padding, the feature having so many tokens."""
        return np.array(logits[:length] if self.per_token else logits)


def truncated(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Sequence[str]], length: int) -> dict[str, list[Any]]:
    """Tokenise texts, or pairs of them, and cut what is too long.

    Args:
        tokenizer: gives the inputs.
        texts: one column of texts, or two of pairs.
        length: longest feature in tokens.

    Returns:
        The inputs by name, `length` in tokens, and `whole_length`, which it would be uncut.
    """
    encoded = tokenizer(*texts)
    columns: dict[str, list[Any]] = {name: encoded[name] for name in tokenizer.model_input_names}
    whole = [len(tokens) for tokens in encoded["input_ids"]]
    long = [row for row, tokens in enumerate(whole) if tokens > length]
    if long:
        cut = tokenizer(*([column[row] for row in long] for column in texts), truncation=True, max_length=length)
        for name, column in columns.items():
            for row, tokens in zip(long, cut[name], strict=True):
                column[row] = tokens
    return {**columns, "length": [len(tokens) for tokens in columns["input_ids"]], "whole_length": whole}


def run(
    infer: Callable[[Feed], np.ndarray], features: Dataset, batch_size: int, collator: Collator, title: str = "scoring"
) -> list[np.ndarray]:
    """Runs all features through a model or an engine.

    Args:
        infer: from a feed to logits [batch, …].
        features: as `Task.encode` gives them.
        batch_size: features in a batch; the last may be smaller.
        collator: pads each batch; its `return_tensors` does not matter.
        title: of the progress that is shown.

    Returns:
        Logits in the features' order, without the padding: such as [classes], or [length, 2].

    Raises:
        ValueError: `infer` does not answer with one row per feature.
    """
    inputs = features.select_columns(list(collator.names))
    lengths = features["length"][:]
    logits: dict[int, np.ndarray] = {}
    with bar(title, len(features)) as advance:
        for batch in bucketed(lengths, batch_size):
            answer = infer(collator.feed(inputs[batch]))
            if len(answer) != len(batch):
                raise ValueError(f"logits of shape {list(answer.shape)} for a batch of {len(batch)}; expected one row each")
            for index, row in zip(batch, answer, strict=True):
                logits[index] = collator.trimmed(row, lengths[index])
            advance(len(batch))
    return [logits[index] for index in range(len(features))]


def fitting(features: Dataset) -> int:
    """Return how many features, at most `BATCH_SIZE`, make a batch of no more than `FEW_TOKENS` whichever they are."""
    return max(1, min(BATCH_SIZE, FEW_TOKENS // max(features["length"])))


def random_batches(
    features: Dataset, collator: Collator, batch_size: int, seed: int = 0, batches: int = FEEDS
) -> list[Feed]:
    """Batches of real examples drawn at random, each padded to its own longest, as a client would send them."""
    few = len(features) < batches * batch_size
    drawn = np.random.default_rng(seed).choice(len(features), (batches, batch_size), replace=few)
    inputs = features.select_columns(list(collator.names))
    return [collator.feed(inputs[indices.tolist()]) for indices in drawn]


def padded_targets(values: Sequence[Any]) -> Any:
    """A target of a batch: numbers as they are, and lists filled up with `IGNORED` to the longest of them."""
    if not isinstance(values[0], Sequence):
        return values
    longest = max(map(len, values))
    return [[*row, *[IGNORED] * (longest - len(row))] for row in values]


def check_logits(features: Dataset, logits: Sequence[np.ndarray]) -> None:
    """Raises unless there are finite logits for every feature.

    Raises:
        ValueError: more or fewer logits than features.
        GateError: a logit is NaN or infinite, which argmax would turn into a prediction in silence.
    """
    if len(logits) != len(features):
        raise ValueError(f"logits of {len(logits)} features, expected {len(features)}")
    bad = [index for index, row in enumerate(logits) if not np.isfinite(row).all()]
    if bad:
        raise GateError(
            f"logits of {len(bad)} of {len(features)} features (first: feature {bad[0]}): found NaN or infinity, "
            "expected finite numbers. Fix: a lower learning rate where training has diverged; else keep the layers that "
            "overflow in higher precision, or calibrate anew"
        )


def by_example(features: Dataset, logits: Sequence[np.ndarray]) -> np.ndarray:
    """Return the logits [examples, classes] in the order of the examples, of which each has one feature.

    Raises:
        GateError: as `check_logits` does.
    """
    check_logits(features, logits)
    found = np.stack(list(logits))
    ordered = np.empty_like(found)
    ordered[features["example"][:]] = found
    return ordered


def _cut(order: np.ndarray, size: int) -> list[list[int]]:
    """Consecutive pieces of `size` indices; the last may be shorter."""
    return [order[start : start + size].tolist() for start in range(0, len(order), size)]


def _padded(rows: Sequence[Sequence[int]], width: int, value: int) -> np.ndarray:
    """int64 [batch, width] with `value` on the right of each row."""
    array = np.full((len(rows), width), value, dtype=np.int64)
    for target, row in zip(array, rows, strict=True):
        target[: len(row)] = row
    return array
