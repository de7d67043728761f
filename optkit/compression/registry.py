"""The techniques by name: optkit's own, those of other packages, and those of a script."""

from collections.abc import Collection, Mapping
from math import inf
from typing import Any

from optkit.core.plugins import Registry
from optkit.recipe.stage import Stage

TECHNIQUES: Registry[type[Stage]] = Registry(
    "technique",
    "optkit.techniques",
    {
        "distill": "optkit.compression.distill:Distill",
        "sparsify": "optkit.compression.sparsify:Sparsify",
        "product_quantize": "optkit.compression.product_quantize:ProductQuantize",
        "quantize": "optkit.compression.quantize:Quantize",
    },
    lambda thing: isinstance(thing, type) and issubclass(thing, Stage),
)


def stage_of(settings: Mapping[str, Any]) -> Stage:
    """The stage that its own dump describes.

    Args:
        settings: what `model_dump` gave, `technique` among them.

    Raises:
        InputError: there is no such technique, or the settings have mistakes.
        MachineError: the package that brings the technique cannot be imported.
    """
    return TECHNIQUES.get(str(settings.get("technique")))(**settings).checked()


def ordered(names: Collection[str]) -> list[str]:
    """Names of techniques in the order of their stages, those whose packages are not here any more last."""
    known = {name: TECHNIQUES.get(name).order for name in set(names).intersection(TECHNIQUES.names())}
    return sorted(names, key=lambda name: (known.get(name, inf), name))
