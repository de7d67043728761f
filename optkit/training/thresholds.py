"""Fitting of a model's decision thresholds on training examples, after whatever has changed its weights."""

import logging
from typing import TYPE_CHECKING

import numpy as np

from optkit.models.loading import LoadedModel, inference
from optkit.tasks.base import Task
from optkit.tasks.collate import BATCH_SIZE, Collator, run
from optkit.tasks.data.tables import limited

if TYPE_CHECKING:
    from datasets import Dataset

EXAMPLES = 10_000
"""Most training examples to fit on: more would take long and change thresholds little."""
log = logging.getLogger(__name__)


def fit(loaded: LoadedModel, task: Task, features: "Dataset", collator: Collator) -> None:
    """Give a model the thresholds that suit it best, if the task has any.

    Args:
        loaded: model, whose `thresholds` are replaced.
        task: task of its head.
        features: encoded training split.
        collator: pads them.
    """
    if not task.fits_thresholds:
        return
    of_feature = np.array(features["example"][:])
    examples = np.unique(of_feature)
    kept = examples[limited(len(examples), EXAMPLES)]
    chosen = features.select(np.flatnonzero(np.isin(of_feature, kept)))
    logits = run(inference(loaded.model, task), chosen, BATCH_SIZE, collator)
    loaded.thresholds = task.fit_thresholds(chosen, logits)
    low, high = min(loaded.thresholds), max(loaded.thresholds)
    log.info("thresholds from %.3g to %.3g, fitted on %s training examples", low, high, f"{len(kept):,}")
