"""What a technique may use besides the model: the training features, the settings, and other recipes' answers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from optkit.core.errors import InputError
from optkit.models.loading import LoadedModel, inference
from optkit.recipe.training import Training
from optkit.tasks.base import Feed, TaskKind
from optkit.tasks.collate import BATCH_SIZE, Collator, bucketed
from optkit.training.loop import Augment, Batches
from optkit.training.resume import Snapshots

if TYPE_CHECKING:
    from datasets import Dataset

WANTED = "expected calibration=batches, {input: [batch, sequence]} each, or task=… with training data"
"""What to give to functions that read activations, the end of a message."""


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
    """Function from a teacher's name to its logits on the training features, then on those without targets, one array
    each."""
    teacher_model: Callable[[str], LoadedModel]
    """Function from a teacher's name to its model."""
    snapshots: Snapshots | None = None
    """Snapshots that an interrupted training resumes from."""
    calibration: Sequence[Feed] | None = None
    """Inputs for calibration, in place of training examples."""
    unlabelled: "Dataset | None" = None
    """Features without targets, which teachers answer too."""

    def batches(self, batch_size: int | None, augment: Augment | None = None, taught: bool = False) -> Batches:
        """Return the batches to train on.

        Args:
            batch_size: training features in each.
            augment: changes each batch.
            taught: whether a teacher says what is right, so that features without targets are among them.
        """
        task = self.task
        if taught and self.unlabelled is not None:
            return Batches(self._all_features(self.unlabelled), self.collator, batch_size, self.seed, (), augment)
        return Batches(self.features, self.collator, batch_size, self.seed, task.targets, augment, task.grouped_by)

    def part(self, indices: Sequence[int]) -> "Context":
        """Return the context with a part of the training features, all features without targets, and their teachers.

        Args:
            indices: of training features.
        """
        count, more = len(self.features), len(self.unlabelled or ())
        chosen = [*indices, *range(count, count + more)]

        def logits(name: str) -> Sequence[NDArray[Any]]:
            whole = self.teacher_logits(name)
            return [whole[index] for index in chosen]

        return replace(self, features=self.features.select(indices), teacher_logits=logits)

    def _all_features(self, unlabelled: "Dataset") -> "Dataset":
        from datasets import concatenate_datasets

        columns = [*self.collator.names, "length"]
        return concatenate_datasets([part.select_columns(columns) for part in (self.features, unlabelled)])

    def feeds(self, count: int) -> Iterator[Feed]:
        """Yield the inputs for calibration, or those of training examples drawn by the seed, batch by batch.

        Raises:
            InputError: there are neither, as without a task.
        """
        if self.calibration is not None:
            yield from self.calibration
            return
        if self.features is None:
            raise InputError(f"found nothing to read the model's activations on; {WANTED}")
        chosen = np.random.default_rng(self.seed).permutation(len(self.features))[:count]
        features = self.features.select(np.sort(chosen))
        inputs = features.select_columns(list(self.collator.names))
        for batch in bucketed(features["length"][:], BATCH_SIZE):
            yield self.collator.feed(inputs[batch])

    def run_examples(self, model: PreTrainedModel, count: int) -> None:
        """Send the inputs of `feeds` through a model."""
        infer = inference(model, self.task)
        for feed in self.feeds(count):
            infer(feed)
