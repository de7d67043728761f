"""What a technique may use besides the model: the training features, the settings, and other recipes' answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from optkit.models.loading import LoadedModel, inference
from optkit.recipe.training import Training
from optkit.tasks.base import Feed, TaskKind
from optkit.tasks.collate import BATCH_SIZE, Collator, run
from optkit.training.loop import Augment, Batches
from optkit.training.resume import Snapshots

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Context:
    """The surroundings of one stage of one recipe."""

    task: TaskKind
    features: "Dataset"
    """Training features."""
    collator: Collator
    training: Training
    """Training settings without None; a stage overrides those that it sets itself."""
    seed: int
    logs: Path
    teacher_logits: Callable[[str], Sequence[NDArray[Any]]]
    """Function from a teacher's name to its logits on the training features, one array each."""
    teacher_model: Callable[[str], LoadedModel]
    """Function from a teacher's name to its model."""
    snapshots: Snapshots | None = None
    """Snapshots that an interrupted training resumes from."""
    calibration: Sequence[Feed] | None = None
    """Inputs for calibration, in place of training examples."""

    def batches(self, batch_size: int | None, augment: Augment | None = None) -> Batches:
        """Return the batches to train on."""
        task = self.task
        return Batches(self.features, self.collator, batch_size, self.seed, task.targets, augment, task.grouped_by)

    def run_examples(self, model: PreTrainedModel, count: int) -> None:
        """Send the inputs for calibration, or training examples drawn by the seed, through a model, batch by batch."""
        if self.calibration is not None:
            for feed in self.calibration:
                inference(model, self.task)(feed)
            return
        chosen = np.random.default_rng(self.seed).permutation(len(self.features))[:count]
        run(inference(model, self.task), self.features.select(np.sort(chosen)), BATCH_SIZE, self.collator)
