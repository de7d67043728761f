"""Tags of IOB1 and IOB2, and the entities that they stand for."""

import re
from collections.abc import Sequence

OUTSIDE = "O"
"""Tag of a token that is in no entity."""
TAG = re.compile(r"O|[BI]-\S(.*\S)?")
"""A tag: none, or the begin or the inside of an entity of a type."""


def entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return type, first token and the one after the last of each entity, as conlleval and seqeval's default mode find them.

    An entity begins with `B-x`, and with an `I-x` that does not follow on a tag of type x (Tjong Kim Sang and De Meulder
    2003, https://aclanthology.org/W03-0419).
    """
    found: list[tuple[str, int, int]] = []
    for place, tag in enumerate(tags):
        prefix, _, kind = tag.partition("-")
        if prefix == OUTSIDE:
            continue
        if prefix == "I" and found and (found[-1][0], found[-1][2]) == (kind, place):
            found[-1] = (kind, found[-1][1], place + 1)
        else:
            found.append((kind, place, place + 1))
    return found


def type_of(tag: str) -> str:
    """Return the type of a tag, also where its prefix is written otherwise, as in `b_person`."""
    return re.sub(r"^[BbIi][-_ ]", "", tag)
