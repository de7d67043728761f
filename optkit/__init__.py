"""optkit: quantize, sparsify and distil BERT-type models, and serve what is measured to be good."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optkit.recipe import Recipe
    from optkit.stages import Distill, Quantize, Sparsify, Training

__version__ = "0.1.0"
__all__ = ["Distill", "Quantize", "Recipe", "Sparsify", "Training"]


def __getattr__(name: str) -> Any:
    """Import recipes' words when they are asked for, so that the server's backend and `--help` start quickly."""
    if name in __all__:
        from optkit import recipe, stages

        return getattr(recipe if name == "Recipe" else stages, name)
    raise AttributeError(f"module 'optkit' has no attribute {name!r}; it has {', '.join(__all__)}")
