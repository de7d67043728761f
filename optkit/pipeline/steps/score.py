"""Scores and timings through the server: every rung, the baseline beside it."""

import logging
from pathlib import Path

from optkit.compression import checkpoint
from optkit.core import step_cache
from optkit.core.code_version import code_version
from optkit.core.step_cache import content_at
from optkit.evaluation.validation import validate
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.build_engines import converted
from optkit.recipe.recipe import Recipe
from optkit.serving.repository import BACKENDS

log = logging.getLogger(__name__)


def scored(recipe: Recipe, spec: RunSpec) -> Path:
    """The folder with the recipe's engines scored at every rung, and measured beside the baseline's."""
    own, baseline = converted(recipe, spec), converted(spec.baseline, spec)
    folder = spec.folder(recipe)

    def make(unfinished: Path) -> None:
        log.info("%s: scoring through Triton", recipe.name)
        loaded = checkpoint.load(folder, spec.task)
        features = spec.features("dev", loaded.tokenizer)
        task = spec.task.deciding(loaded.thresholds)
        validate(task, loaded, features, own, baseline, unfinished, folder / "logs", spec.seconds)

    groups = {name: found.tolist() for name, found in spec.task.drawn()._asdict().items() if found is not None}
    depends_on = {
        "engines": content_at(own),
        "baseline": content_at(baseline),
        "seconds": spec.seconds,
        "metric": spec.task.metric,
        **({"groups": step_cache.key_of(groups)} if groups else {}),
        "code": code_version(__name__, *spec.modules(recipe), *BACKENDS),
    }
    step_cache.step(folder / "served", depends_on, make)
    return folder / "served"
