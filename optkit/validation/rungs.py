"""The rungs a model climbs on its way to the server, each scored on the same examples: PyTorch, graph, engine, server."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from datasets import Dataset

from optkit import engines
from optkit.graph import reference
from optkit.models import Loaded, inference
from optkit.tasks.base import Feed, Task
from optkit.tasks.batches import Collator, run

BATCH_SIZE = 32


def climb(
    loaded: Loaded, graph: Path, engine: Path, features: Dataset, collator: Collator
) -> dict[str, list[np.ndarray]]:
    """Logits of every feature at each rung before the server: `pytorch`, `graph`, `engine`."""
    infers: dict[str, Callable[[Feed], np.ndarray]] = {
        "pytorch": inference(loaded.model),
        "graph": partial(reference.infer, reference.load(graph)),
        "engine": partial(engines.infer, engines.load(engine)),
    }
    return {rung: run(infer, features, BATCH_SIZE, collator) for rung, infer in infers.items()}


def scores(task: Task, features: Dataset, logits: Sequence[np.ndarray]) -> dict[str, float]:
    """Every metric of the task, in points."""
    return task.score(task.predict(features, logits))
