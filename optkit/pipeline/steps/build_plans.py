"""Engines of a kind that this machine can build and not run."""

import logging
from pathlib import Path

from optkit.core import step_cache
from optkit.core.code_version import code_version
from optkit.core.step_cache import content_at
from optkit.engines import build_only
from optkit.engines import registry as engines
from optkit.models import thresholds_file
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.export_graph import exported
from optkit.pipeline.steps.measure_ranges import ranged
from optkit.recipe.recipe import Recipe
from optkit.serving import native

log = logging.getLogger(__name__)


def planned(recipe: Recipe, spec: RunSpec, kind: str) -> Path:
    """The folder with engines of a kind that cannot run here, beside the recipe's engines and apart from them."""
    wants_ranges = recipe.is_quantised and engines.runtime(kind).needs_ranges
    graph = (ranged if wants_ranges else exported)(recipe, spec)
    folder = spec.folder(recipe) / "plans"

    def make(unfinished: Path) -> None:
        log.info("%s: %s plans", recipe.name, kind)
        build_only.build(graph / "model.onnx", unfinished, kind, recipe.is_quantised, spec.options.get(kind, {}))
        thresholds_file.write(unfinished, thresholds_file.read(spec.folder(recipe)))
        native.write_configs(unfinished)

    depends_on = {
        "graph": content_at(graph),
        "kind": kind,
        "options": engines.options([kind], spec.options),
        "machine": engines.machine([kind]),
        "code": code_version(__name__, *engines.modules([kind])),
    }
    step_cache.step(folder, depends_on, make)
    return folder
