"""What a technique may use besides the model: the training features, the settings, and other recipes' logits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset

from optkit.recipe import Training
from optkit.tasks.batches import Collator


@dataclass(frozen=True)
class Context:
    """The surroundings of one stage of one recipe."""

    features: Dataset
    """Training features."""
    collator: Collator
    training: Training
    """Resolved, without None; a stage overrides what it sets itself."""
    seed: int
    logs: Path
    teacher_logits: Callable[[str], Sequence[np.ndarray]]
    """From a recipe's name to its logits on the training features."""
