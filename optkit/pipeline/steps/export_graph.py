"""The ONNX graph of a checkpoint, with its audit."""

import logging
from pathlib import Path

from optkit.compression import checkpoint
from optkit.core import atomic, step_cache
from optkit.core.code_version import code_version
from optkit.core.step_cache import content_at
from optkit.graph.audit import audit as audit_graph
from optkit.graph.export import export
from optkit.models import loading, thresholds_file
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.train import trained
from optkit.recipe.recipe import Recipe

log = logging.getLogger(__name__)


def exported(recipe: Recipe, spec: RunSpec) -> Path:
    """The folder with the recipe's `model.onnx` and its audit."""
    trained_at = trained(recipe, spec)
    folder = trained_at / "graph"

    def make(unfinished: Path) -> None:
        log.info("%s: ONNX graph", recipe.name)
        loaded = checkpoint.load(trained_at, spec.task)
        audit = audit_graph(export(loaded.model, unfinished, loading.max_length(loaded, spec.task), spec.task))
        thresholds_file.write(unfinished, loaded.thresholds)
        for stage in recipe.stages:
            stage.check_graph(audit, loaded.model)
        atomic.write_json(unfinished / "audit.json", audit.to_dict())

    depends_on = {"checkpoint": content_at(trained_at), "code": code_version(__name__, *spec.modules(recipe))}
    step_cache.step(folder, depends_on, make)
    return folder
