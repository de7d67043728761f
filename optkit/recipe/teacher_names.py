"""Names of teachers: a recipe, a recipe of another seed, or a folder of a model."""

import re
from typing import Any

_RECIPE = re.compile(r"[a-z0-9][a-z0-9_]*(?:@[0-9]{1,9})?")  # random number generators take seeds of 32 bits


def is_folder(teacher: str) -> bool:
    """Return whether a teacher names a model's folder (it contains a slash) rather than a recipe."""
    return "/" in teacher


def is_teacher(name: str) -> bool:
    """Return whether a name is one that a teacher can have."""
    return is_folder(name) or bool(_RECIPE.fullmatch(name))


def one_or_several(given: Any) -> Any:
    """Return a teacher's name as it is, and several as a tuple.

    Raises:
        ValueError: it is neither.
    """
    names = [given] if isinstance(given, str) else given
    several = isinstance(names, list | tuple) and names
    wrong = [name for name in names if not (isinstance(name, str) and is_teacher(name))] if several else []
    if wrong or not several:
        found = f"; found {', '.join(map(repr, wrong))}" if wrong else ""
        raise ValueError(
            f"expected a recipe, a recipe of a seed such as baseline_fp32@1, a folder, or a list of them{found}"
        )
    return given if isinstance(given, str) else tuple(names)


def teachers_or_none(given: Any) -> Any:
    """Return what `one_or_several` does; None as it is."""
    return None if given is None else one_or_several(given)


def recipe_of(teacher: str) -> str:
    """Return the recipe that a teacher names, such as "baseline_fp32" of "baseline_fp32@1"."""
    return teacher.partition("@")[0]


def seed_of(teacher: str, own: int) -> int:
    """Return the seed of a teacher's recipe.

    Args:
        teacher: name of a recipe, perhaps with one.
        own: seed of the run, where the name has none.
    """
    seed = teacher.partition("@")[2]
    return int(seed) if seed else own
