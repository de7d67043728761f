"""The engines: every candidate built and compared, the fastest that is right kept for each precision."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from optkit.compression import checkpoint
from optkit.core import step_cache
from optkit.core.code_version import code_version
from optkit.core.json_door import read_json
from optkit.core.step_cache import content_at
from optkit.engines import registry as engines
from optkit.engines.select import SHAPES, convert
from optkit.models import loading, thresholds_file
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.export_graph import exported
from optkit.pipeline.steps.measure_ranges import ranged
from optkit.recipe.recipe import Recipe
from optkit.serving import native
from optkit.tasks.collate import fitting, random_batches

log = logging.getLogger(__name__)


def say_longer(lengths: Sequence[int], name: str) -> None:
    """Warn where most texts are longer than the shapes at which engines are chosen.

    Args:
        lengths: of the texts, in tokens.
        name: of the recipe, which may say other shapes.
    """
    usual, longest = int(np.median(lengths)), max(tokens for _, tokens in SHAPES)
    if usual > longest:
        log.warning(
            "%s: engines are chosen at up to %d tokens, and texts have %d in the median. For these: "
            "Recipe(workload=[(1, %d)])",
            *(name, longest, usual, usual),
        )


def converted(recipe: Recipe, spec: RunSpec, beside_scored: bool = False) -> Path:
    """The folder with one engine per precision, `<precision>/`, and `conversion.json`, which says why that one.

    Args:
        recipe: whose engines.
        spec: what they are built on, and which.
        beside_scored: leave other engines that were scored through the server in their place, and build into `built/`.
    """
    kinds = spec.engines or engines.installed()
    wants_ranges = recipe.is_quantised and any(engines.runtime(kind).needs_ranges for kind in kinds)
    graph = (ranged if wants_ranges else exported)(recipe, spec)

    def make(unfinished: Path) -> None:
        log.info("%s: engines", recipe.name)
        loaded = checkpoint.load(spec.folder(recipe), spec.task)
        features = spec.features("dev", loaded.tokenizer)
        if not recipe.workload:
            say_longer(features["length"][:], recipe.name)
        conversion = convert(
            graph / "model.onnx",
            unfinished,
            spec.engines,
            quantised=recipe.is_quantised,
            covered_share=read_json(spec.folder(recipe) / "graph" / "audit.json")["covered_share"],
            feeds=random_batches(features, spec.collator(loaded.tokenizer), fitting(features)),
            task=spec.task.deciding(loaded.thresholds),
            options=spec.options,
            max_length=loading.max_length(loaded, spec.task),
            shapes=recipe.workload or SHAPES,
        )
        for stage in recipe.stages:
            stage.check_engines(conversion, loaded.model)
        thresholds_file.write(unfinished, loaded.thresholds)
        native.write_configs(unfinished)

    depends_on = {
        "graph": content_at(graph),
        "kinds": spec.engines,
        "machine": engines.machine(kinds),
        "options": engines.options(kinds, spec.options),
        "code": code_version(__name__, *spec.modules(recipe), *engines.modules(kinds)),
        "workload": recipe.workload,
    }
    folder = spec.folder(recipe) / "engines"
    are_others = not step_cache.is_finished(folder, step_cache.key_of(depends_on))
    if beside_scored and are_others and (spec.folder(recipe) / "served" / step_cache.RECORD).is_file():
        folder = spec.folder(recipe) / "built"
    step_cache.step(folder, depends_on, make)
    return folder
