"""optkit: quantize, sparsify and distil BERT-type models, and serve what is measured to be good."""

import importlib
import os
from typing import TYPE_CHECKING, Any

from optkit.core import telemetry
from optkit.core.cpu import bound_openmp

if TYPE_CHECKING:
    from optkit.compression.distill import Distill
    from optkit.compression.product_quantize import ProductQuantize
    from optkit.compression.quantize import Quantize
    from optkit.compression.sparsify import Sparsify
    from optkit.compression.verbs import distill, keep_sparse, quantize_, sparsify_
    from optkit.engines.registry import Engine, build_engine
    from optkit.engines.registry import load as load_engine
    from optkit.evaluation.evaluate import Evaluation, evaluate
    from optkit.graph.export_onnx import export_onnx
    from optkit.models.loading import LoadedModel
    from optkit.models.loading import load as load_model
    from optkit.pipeline.run_recipes import run_recipes as run
    from optkit.recipe.finder import find_recipe
    from optkit.recipe.recipe import Recipe
    from optkit.recipe.stage import Stage
    from optkit.recipe.training import Training
    from optkit.report.table import render as compare
    from optkit.serving.encode import encode
    from optkit.tasks.registry import load as load_task

__version__ = "0.2.0"
__all__ = [
    "Distill",
    "Engine",
    "Evaluation",
    "LoadedModel",
    "ProductQuantize",
    "Quantize",
    "Recipe",
    "Sparsify",
    "Stage",
    "Training",
    "build_engine",
    "compare",
    "distill",
    "encode",
    "evaluate",
    "export_onnx",
    "find_recipe",
    "keep_sparse",
    "load_engine",
    "load_model",
    "load_task",
    "main",
    "quantize_",
    "run",
    "sparsify_",
]
_RECIPES = {
    "Distill": "optkit.compression.distill:Distill",
    "ProductQuantize": "optkit.compression.product_quantize:ProductQuantize",
    "Quantize": "optkit.compression.quantize:Quantize",
    "Sparsify": "optkit.compression.sparsify:Sparsify",
    "Recipe": "optkit.recipe.recipe:Recipe",
    "Stage": "optkit.recipe.stage:Stage",
    "Training": "optkit.recipe.training:Training",
}
"""Classes that recipes are written in: light, and imported together, because a stage given as a dictionary is looked up
among the imported techniques."""
_VERBS = {
    "Engine": "optkit.engines.registry:Engine",
    "Evaluation": "optkit.evaluation.evaluate:Evaluation",
    "LoadedModel": "optkit.models.loading:LoadedModel",
    "build_engine": "optkit.engines.registry:build_engine",
    "compare": "optkit.report.table:render",
    "distill": "optkit.compression.verbs:distill",
    "encode": "optkit.serving.encode:encode",
    "evaluate": "optkit.evaluation.evaluate:evaluate",
    "export_onnx": "optkit.graph.export_onnx:export_onnx",
    "find_recipe": "optkit.recipe.finder:find_recipe",
    "keep_sparse": "optkit.compression.verbs:keep_sparse",
    "load_engine": "optkit.engines.registry:load",
    "load_model": "optkit.models.loading:load",
    "load_task": "optkit.tasks.registry:load",
    "quantize_": "optkit.compression.verbs:quantize_",
    "run": "optkit.pipeline.run_recipes:run_recipes",
    "sparsify_": "optkit.compression.verbs:sparsify_",
}

# libgomp reads this when torch is loaded. By default its threads spin 300,000 times while they wait for one another, and
# where other work needs a core too, keep the awaited one from running: a training step took 50 times as long.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
bound_openmp(os.environ)
telemetry.switch_off(os.environ)


def main(recipe: "Recipe") -> None:
    """Run a recipe from its own script, with the options of `optkit run`: `python recipes/NAME.py --task TASK`.

        if __name__ == "__main__":
            optkit.main(recipe)

    Args:
        recipe: the script's recipe. The command line loads it again by the script's path.
    """
    import sys

    from optkit.cli.app import main as run

    run(["run", sys.argv[0], *sys.argv[1:]])


def __getattr__(name: str) -> Any:
    """Import a public name on first access, so that the server's backend and `--help` start quickly."""
    if name in _RECIPES:
        return {own: _found(place) for own, place in _RECIPES.items()}[name]
    if name in _VERBS:
        return _found(_VERBS[name])
    raise AttributeError(f"module 'optkit' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    """Return the public names, for completion in notebooks."""
    return [*__all__, "__version__"]


def _found(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)
