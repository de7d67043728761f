"""What a technique may use besides the model: the training features, the settings, and other recipes' answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel

from optkit.models.loading import Loaded, inference
from optkit.recipe.training import Training
from optkit.tasks.base import Task
from optkit.tasks.collate import BATCH_SIZE, Collator, run
from optkit.training.loop import Augment, Batches
from optkit.training.resume import Snapshots


@dataclass(frozen=True)
class Context:
    """The surroundings of one stage of one recipe."""

    task: Task
    features: Dataset
    """Training features."""
    collator: Collator
    training: Training
    """Resolved, without None; a stage overrides what it sets itself."""
    seed: int
    logs: Path
    teacher_logits: Callable[[str], Sequence[np.ndarray]]
    """From a teacher's name to its logits on the training features."""
    teacher_model: Callable[[str], Loaded]
    """From a teacher's name to the model itself."""
    snapshots: Snapshots | None = None
    """Where a training that was killed goes on from."""

    def batches(self, batch_size: int | None, augment: Augment | None = None) -> Batches:
        """The training features to train on."""
        return Batches(self.features, self.collator, batch_size, self.seed, self.task.targets, augment)

    def run_examples(self, model: PreTrainedModel, count: int) -> None:
        """Send training examples drawn by the seed through a model, one batch after the other."""
        chosen = np.random.default_rng(self.seed).permutation(len(self.features))[:count]
        run(inference(model, self.task), self.features.select(np.sort(chosen)), BATCH_SIZE, self.collator)
