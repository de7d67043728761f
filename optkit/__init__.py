"""optkit: quantize, sparsify and distil BERT-type models, and serve what is measured to be good."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optkit.compression.distill import Distill
    from optkit.compression.quantize import Quantize
    from optkit.compression.sparsify import Sparsify
    from optkit.recipe.recipe import Recipe
    from optkit.recipe.stage import Stage
    from optkit.recipe.training import Training

__version__ = "0.1.0"
__all__ = ["Distill", "Quantize", "Recipe", "Sparsify", "Stage", "Training", "main"]

# libgomp reads this when torch is loaded. By default its threads spin 300,000 times while they wait for one another, and
# where other work needs a core too, keep the awaited one from running: a training step took 50 times as long.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def main(recipe: "Recipe") -> None:
    """Run a recipe from its own script: `python recipes/NAME.py --task TASK`, options as of `optkit run`."""
    import sys

    from optkit.cli.app import main as run

    run(["run", sys.argv[0], *sys.argv[1:]])


def __getattr__(name: str) -> Any:
    """Import recipes' words when they are asked for, so that the server's backend and `--help` start quickly.

    They come together: a recipe finds the technique of a stage in a dictionary among those that are imported.
    """
    if name in __all__:
        from optkit.compression import distill, quantize, sparsify
        from optkit.recipe import recipe, stage, training

        modules = (distill, quantize, recipe, sparsify, stage, training)
        return next(getattr(module, name) for module in modules if hasattr(module, name))
    raise AttributeError(f"module 'optkit' has no attribute {name!r}; it has {', '.join(__all__)}")
