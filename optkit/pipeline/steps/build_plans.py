"""TensorRT's plans on a machine that cannot run them."""

import logging
from pathlib import Path

from optkit import engines
from optkit.core import step_cache
from optkit.core.code_version import code_version
from optkit.core.step_cache import key_at
from optkit.engines.tensorrt import plans
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.export_graph import exported
from optkit.pipeline.steps.measure_ranges import ranged
from optkit.recipe.recipe import Recipe
from optkit.serving import native

log = logging.getLogger(__name__)


def planned(recipe: Recipe, spec: RunSpec, variant: str | None = None) -> Path:
    """The folder with TensorRT's plans of a machine that cannot run them, beside its engines and apart from them."""
    graph = (ranged if recipe.is_quantised else exported)(recipe, spec)
    folder = spec.folder(recipe) / "plans"

    def make(unfinished: Path) -> None:
        log.info("%s: TensorRT plans", recipe.name)
        plans.build(graph / "model.onnx", unfinished, recipe.is_quantised, spec.tensorrt, variant)
        native.write_configs(unfinished)

    depends_on = {
        "graph": key_at(graph),
        "tensorrt": spec.tensorrt.as_dict(),
        "variant": variant,
        "machine": engines.machine([plans.KIND]),
        "code": code_version(__name__),
    }
    step_cache.step(folder, depends_on, make)
    return folder
