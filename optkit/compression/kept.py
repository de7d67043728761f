"""Linear modules that a technique leaves as they are: named by patterns, or chosen by what they cost (see `sensitivity`).

Their names stand in the model's configuration, under the technique, so that a checkpoint says which they are, and every
later check expects these and no others.
"""

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator

from optkit.core.errors import InputError
from optkit.recipe.unread import ReadWhere

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

FIELD = "optkit_kept"
"""Field of a configuration: {technique: names of modules}; not there where none are kept."""


UNCALLED = "uncalled"
"""Stands in the field beside the techniques, for Linear modules that the model never calls on texts."""


def _listed(given: Any) -> Any:
    return (given,) if isinstance(given, str) and given != "auto" else given


Kept = Annotated[Literal["auto"] | tuple[str, ...], BeforeValidator(_listed)]
"""Setting: names of modules, in which `*` stands for anything, or "auto"."""
CHOSEN = {
    "keep_float": ReadWhere(("keep_float",), lambda stage: stage.keep_float == "auto", "keep_float is not 'auto'"),
    "keep_dense": ReadWhere(("keep_dense",), lambda stage: stage.keep_dense == "auto", "keep_dense is not 'auto'"),
}
"""What reads a budget: modules that are chosen, by the setting that asks for it."""


def resolve(asked: Kept, linears: Mapping[str, "nn.Linear"], setting: str) -> list[str]:
    """Return the names that patterns stand for, in the model's order; none for "auto", which is chosen later.

    Args:
        asked: names, in which `*` stands for anything, or "auto".
        linears: modules that the technique changes, by name.
        setting: name of the setting, the begin of the message.

    Raises:
        InputError: a pattern stands for none, or together they stand for all.
    """
    patterns = () if asked == "auto" else asked
    lost = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in linears)]
    if lost:
        raise InputError(
            f"{setting}: {', '.join(map(repr, lost))} stands for none of the {len(linears)} Linear modules, such as "
            f"{next(iter(linears), 'none')!r}; expected such names, with * for any part, or 'auto' "
            "alone: optkit sensitivity lists them"
        )
    found = [name for name in linears if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if found and len(found) == len(linears):
        raise InputError(f"{setting}: leaves all {len(linears)} Linear modules as they are; leave the stage out instead")
    return found


def record(model: "PreTrainedModel", technique: str, names: Collection[str]) -> None:
    """Write into a model's configuration which modules a technique leaves as they are, in place of what it said before."""
    before = getattr(model.config, FIELD, {})
    found = {**(before if isinstance(before, dict) else {}), technique: list(names)}
    found = {name: own for name, own in found.items() if own}
    if found:
        setattr(model.config, FIELD, found)
    elif hasattr(model.config, FIELD):
        delattr(model.config, FIELD)


def names(model: "PreTrainedModel", technique: str) -> frozenset[str]:
    """Return the names of the modules that a technique has left as they are.

    Raises:
        InputError: the configuration holds something else in their place.
    """
    found = getattr(model.config, FIELD, {})
    own = found.get(technique, []) if isinstance(found, dict) else None
    if not isinstance(own, list) or not all(isinstance(name, str) for name in own):
        raise InputError(f"config.json: {FIELD} is {found!r:.200}, expected names of modules by technique")
    return frozenset(own)


def work(linear: "nn.Linear") -> int:
    """Return the multiply-adds of a Linear per token."""
    return linear.out_features * linear.in_features


def share(linears: Mapping[str, "nn.Linear"], kept: Collection[str]) -> float:
    """Return the share of the multiply-adds of Linear modules that some of them have."""
    return sum(work(linears[name]) for name in kept) / sum(map(work, linears.values()))
