"""The ranges that only TensorRT's placements of quantisers need."""

import logging
from pathlib import Path

from optkit.compression import checkpoint
from optkit.core import step_cache
from optkit.core.code_version import code_version
from optkit.core.step_cache import content_at
from optkit.graph.tensorrt import ranges
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.export_graph import exported
from optkit.recipe.recipe import Recipe
from optkit.tasks.collate import BATCH_SIZE, FEEDS, fitting, random_batches

log = logging.getLogger(__name__)


def ranged(recipe: Recipe, spec: RunSpec) -> Path:
    """The folder of the quantised graph with the ranges that only TensorRT's placements need."""
    graph, folder = exported(recipe, spec), spec.folder(recipe) / "ranges"

    def make(unfinished: Path) -> None:
        log.info("%s: ranges for TensorRT", recipe.name)
        loaded = checkpoint.load(spec.folder(recipe), spec.task)
        features = spec.features("train", loaded.tokenizer)
        size = fitting(features)  # every measured tensor of a batch is kept
        collator, batches = spec.collator(loaded.tokenizer), FEEDS * BATCH_SIZE // size
        feeds = random_batches(features, collator, size, batches=batches)
        ranges.prepare(graph / "model.onnx", feeds, unfinished)

    depends_on = {"graph": content_at(graph), "code": code_version(__name__, *spec.modules(recipe))}
    step_cache.step(folder, depends_on, make)
    return folder
