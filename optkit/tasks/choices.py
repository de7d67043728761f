"""What models choose among, as probabilities: how far those of two models are apart, and how likely what is right is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from datasets import Dataset

Shares = Mapping[str, NDArray[Any]]
"""Result of `shares`."""


class Choices(NamedTuple):
    """What is decided on one feature."""

    scores: NDArray[Any]
    """Logits, whose softmax over the last axis are probabilities, [decisions, choices]."""
    right: NDArray[Any] | None = None
    """Probability of what is right, [decisions, choices]: 1 of one choice, or shares; None where it is not known."""


class Choosing:
    """Base class of tasks for what models decide."""

    def choices(self, features: Dataset, logits: Sequence[NDArray[Any]]) -> Iterable[Choices] | None:
        """Return what is decided on each feature; None for a task of values.

        By default the `distributions` that teachers are followed by, without what is right.

        Args:
            features: encoded split.
            logits: one array per feature, without padding.
        """
        import torch

        if self.choice is None:  # type: ignore[attr-defined]
            return None
        of_features = (self.distributions(torch.from_numpy(row)[None]) for row in logits)  # type: ignore[attr-defined]
        return (Choices(found.numpy()) for found in of_features)

    def decision(self, prediction: Any) -> Any:
        """Return what is decided by a prediction, which its `repr` tells from other decisions; None for a value, which moves
        and never flips."""
        return prediction

    def same(self, prediction: Any, other: Any) -> bool:
        """Return whether two predictions are the same decision."""
        return bool(self.decision(prediction) == self.decision(other))


def shares(task: Choosing, features: Dataset, logits: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the probabilities of what a model chooses among on a split, to be compared with another's.

    Args:
        task: of the model.
        features: encoded split, such as a part of train that is held out.
        logits: the model's, one array per feature, without padding.

    Returns:
        `log_shares` float32, of one decision after the other; `widths`, how many choices each has; `owners`, its example;
        and where it is known what is right, `nll` [examples], its negative log-likelihood in nats, the mean over the
        decisions of an example. Empty for a task of values.
    """
    found = task.choices(features, logits)
    if found is None:
        return {}
    parts: list[NDArray[Any]] = []
    nll, widths, owners = list[float](), list[int](), list[int]()
    for example, (scores, right) in zip(features["example"][:], found, strict=True):
        log_shares = _log_softmax(scores)
        parts.append(log_shares.ravel().astype(np.float32))
        nll += [] if right is None else (-(log_shares * right).sum(-1)).tolist()
        widths += [scores.shape[1]] * len(scores)
        owners += [example] * len(scores)
    arrays = {"widths": np.array(widths, np.int32), "owners": np.array(owners, np.int32)}
    of_examples = {"nll": _of_examples(np.array(nll), arrays["owners"])} if len(nll) == len(owners) else {}
    return {"log_shares": np.concatenate(parts), **arrays, **of_examples}


def divergence(own: Shares, reference: Shares) -> NDArray[np.float64] | None:
    """Return the divergence KL(reference || own) of each example in nats, the mean over its decisions, [examples].

    Args:
        own: shares of a model.
        reference: shares of the model that it should answer like, on the same examples.

    Returns:
        None where either has none, or the two decide on other things.
    """
    names = ("widths", "owners")
    if not all(name in one for name in names for one in (own, reference)):
        return None
    if not all(np.array_equal(own[name], reference[name]) for name in names):
        return None
    log_shares = reference["log_shares"].astype(np.float64)
    apart = np.exp(log_shares) * (log_shares - own["log_shares"])
    starts = np.cumsum(own["widths"]) - own["widths"]
    return _of_examples(np.maximum(0.0, np.add.reduceat(apart, starts)), own["owners"])


def _of_examples(values: NDArray[np.float64], owners: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return the mean over the decisions of each example; 0 of one without any."""
    return np.bincount(owners, values) / np.maximum(1, np.bincount(owners))


def _log_softmax(scores: NDArray[Any]) -> NDArray[np.float64]:
    moved = scores.astype(np.float64) - scores.max(-1, keepdims=True, initial=-np.inf)
    found: NDArray[np.float64] = moved - np.log(np.exp(moved).sum(-1, keepdims=True))
    return found
