"""What a run is about to train, said before compute is spent: data, classes, lengths, duplicates, model, device."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from optkit.core.cpu import available_threads
from optkit.models.loading import LoadedModel
from optkit.pipeline.run_spec import RunSpec
from optkit.recipe.training import Training
from optkit.tasks.base import SPLITS, Split, Task
from optkit.training.loop import autocast_type, on_cpu

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)
_FEW_GROUPS = 30
"""Groups from which on a bootstrap of groups is to be trusted (Cameron et al. 2008)."""
_SHOWN = 6
"""Classes to list; of more the most and the least frequent."""


def say(spec: RunSpec, loaded: LoadedModel, training: Training) -> None:
    """Log what is about to be trained; what may be wrong with it as warnings.

    Args:
        spec: task, and its features.
        loaded: model to train.
        training: resolved training settings.
    """
    task = spec.task
    for split in SPLITS:
        encoded = spec.features(split, loaded.tokenizer)
        log.info("%s: %s", split, _rows(task, split, encoded))
        if cut := _cut(task, split, encoded):
            log.warning("%s: %s", split, cut)
    for doubt in (*_duplicates(task), *(f"dev: {leak}" for leak in task.leaks.sentences())):
        log.warning("%s", doubt)
    _say_groups(task)
    log.info("%s; scored by %s", _model(loaded, training), task.metric_in_words)


def _rows(task: Task, split: Split, features: "Dataset") -> str:
    rows, lengths = task.examples(split), np.array(features["length"][:])
    kind = "windows" if task.served.has_windows else "texts"
    pieces = f" in {len(features):,} {kind}" if len(features) != len(rows) else ""
    labels, names = task.class_shares(split)
    classes = f"; {shares(labels, names)}" if names else ""
    return f"{len(rows):,} rows{pieces}, {np.median(lengths):.0f} tokens in the median, {lengths.max():,} at most{classes}"


def shares(labels: Sequence[int], names: Sequence[str]) -> str:
    """Return classes with their shares, the most frequent first; of many the first and the last few."""
    counts = Counter(dict.fromkeys(range(len(names)), 0) | Counter(labels))
    found = [f"{names[index]} {count / max(1, len(labels)):.1%}" for index, count in counts.most_common()]
    if len(found) <= _SHOWN:
        return f"{len(found)} classes: {', '.join(found)}"
    return f"{len(found)} classes: {', '.join(found[: _SHOWN // 2])}, …, {', '.join(found[-_SHOWN // 2 :])}"


def _cut(task: Task, split: Split, features: "Dataset") -> str | None:
    """Return how many rows lose tokens; None for none."""
    if "whole_length" not in features.column_names:
        return None
    whole, kept = (np.array(features[name][:]) for name in ("whole_length", "length"))
    cut = int((whole > kept).sum())
    if not cut:
        return None
    return (
        f"{cut:,} of {len(whole):,} rows ({cut / len(whole):.1%}) are cut at {int(kept.max())} tokens; the longest has "
        f"{int(whole.max()):,}"
    )


def _duplicates(task: Task) -> Iterator[str]:
    """Yield what rows of equal text there are in the training split, and whether under different labels."""
    train = task.texts("train")
    if twice := len(train) - len(set(train)):
        yield f"train: {twice:,} of {len(train):,} rows repeat the text of another"
    rows = task.examples("train")
    if task.labels and "label" in rows.column_names and (unsure := _contradictions(train, rows["label"][:])):
        yield f"train: {unsure:,} texts come with different labels"


def _say_groups(task: Task) -> None:
    """Log how many groups intervals draw; few of them as a warning."""
    groups = task.drawn().outcomes
    if groups is None:
        return
    count = int(groups.max()) + 1
    log.info("dev: intervals draw its %s groups", f"{count:,}")
    if count < _FEW_GROUPS:
        log.warning("dev: %d groups are few, and intervals by them too narrow; more groups would help, not more rows", count)


def _contradictions(texts: Sequence[tuple[str, ...]], labels: Sequence[Any]) -> int:
    """Return how many texts come with different labels, or sets of them."""
    found: dict[tuple[str, ...], set[str]] = {}
    for text, label in zip(texts, labels, strict=True):
        found.setdefault(text, set()).add(str(label))
    return sum(len(own) > 1 for own in found.values())


def _model(loaded: LoadedModel, training: Training) -> str:
    parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    head = "with its head" if loaded.fine_tuned else "with a new head"
    return f"{type(loaded.model).__name__} {head}, {parameters:,} parameters; {_device()}, {autocast_type(training)}"


def _device() -> str:
    return f"on {available_threads()} CPU cores" if on_cpu() else f"on {torch.cuda.get_device_name()}"
