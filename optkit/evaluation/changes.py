"""How an engine's answers differ from the FP32 baseline's beside the metric, which a few examples decide: the divergence of
what both choose among, decisions that flip, and how likely what is right has become."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optkit.evaluation.bootstrap import Groups, paired_bootstrap
from optkit.evaluation.results import CHANGES
from optkit.tasks.choices import divergence, shares

if TYPE_CHECKING:  # it brings torch, without which `optkit compare` starts quickly
    from datasets import Dataset

    from optkit.tasks.base import Prediction, Task

Answers = Mapping[str, NDArray[Any]]
"""Result of `answers`."""
_DECISIONS = "decisions"


def answers(
    task: "Task", features: "Dataset", logits: Sequence[NDArray[Any]], predictions: Sequence["Prediction"]
) -> dict[str, NDArray[Any]]:
    """Return what a model answered, to be compared with another's: see `optkit.tasks.choices.shares`, and `decisions`
    uint64 [examples], a number for each different one.

    Args:
        task: of the model.
        features: encoded dev split.
        logits: the model's, one array per feature, without padding.
        predictions: what the task makes of them, one per example.
    """
    decisions = [task.decision(prediction) for prediction in predictions]
    found = shares(task, features, logits)
    if all(decision is not None for decision in decisions):
        found[_DECISIONS] = np.array([_number(decision) for decision in decisions], np.uint64)
    return found


def of_examples(own: Answers, baseline: Answers) -> dict[str, NDArray[np.float64]]:
    """Return the changes of each example, [examples] by the names of `CHANGES`; without those that a task has not.

    Args:
        own: answers of an engine.
        baseline: answers of the FP32 baseline to the same examples.
    """
    found = {"kl": divergence(own, baseline)}
    if _DECISIONS in own and _DECISIONS in baseline:
        found["flips"] = 100.0 * (own[_DECISIONS] != baseline[_DECISIONS])
    if "nll" in own and "nll" in baseline:
        found["nll_change"] = own["nll"] - baseline["nll"]
    return {name: values for name in CHANGES if (values := found.get(name)) is not None}


def summary(own: Sequence[Answers], baselines: Sequence[Answers], groups: Groups) -> dict[str, Any]:
    """Return the fields of a row that are about changes: the mean of each, and its 95 % interval.

    Args:
        own: answers of an engine by seed.
        baselines: answers of the FP32 baseline of the same seeds.
        groups: of the examples.
    """
    seeds = [of_examples(*pair) for pair in zip(own, baselines, strict=True)]
    found: dict[str, Any] = {}
    for name in CHANGES:
        known = all(name in changes for changes in seeds)
        values = np.stack([changes[name] for changes in seeds]) if known else None
        found[name] = None if values is None else float(values.mean())
        found[f"{name}_ci95"] = None if values is None else list(paired_bootstrap(values, 0 * values, name, groups))
    return found


def _number(decision: Any) -> int:
    return int.from_bytes(hashlib.blake2b(repr(decision).encode(), digest_size=8).digest(), "little")
