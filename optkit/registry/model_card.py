"""Model cards: a README written from a version's provenance, and from nothing else (after Mitchell et al. 2019)."""

from collections.abc import Mapping
from typing import Any

from optkit.core.templates import template

_PLACES = {"pytorch": "PyTorch", "graph": "ONNX graph", "engine": "engine", "server": "Triton"}


def text(provenance: Mapping[str, Any]) -> str:
    """The card of one version, in Markdown."""
    row = provenance["row"]
    seeds = [other for other in provenance["rows"] if other["seed"] is not None and _is_same(other, row)]
    card = template("optkit.registry", "model_card.md.jinja")
    return card.render(origin=provenance, seeds=seeds, places=_PLACES)


def _is_same(other: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return all(other[name] == row[name] for name in ("recipe", "precision"))
